"""The stub is the contract of the extension module: mypy checks its users against it, this checks the module."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from pilotlight import _native

from devtools import paths

STUB = ast.parse((paths.ROOT / "python" / "pilotlight" / "_native.pyi").read_text())
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}


def functions(of: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    return (node for node in of.body if isinstance(node, ast.FunctionDef))


def parameters(function: ast.FunctionDef) -> list[tuple[str, bool, Any]]:
    """Name, whether only by keyword, and the default."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    told = [(argument.arg, False, default) for argument, default in zip(positional, defaults, strict=True)]
    told += [
        (argument.arg, True, default) for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return [(name, by_keyword, default and ast.literal_eval(default)) for name, by_keyword, default in told if name != "self"]


def test_it_names_everything_and_nothing_else() -> None:
    assert {name for name in vars(_native) if not name.startswith("_")} - {"Candidates"} == set(CLASSES)
    for name, node in CLASSES.items():
        has = {member for member in vars(getattr(_native, name)) if not member.startswith("_")}
        assert has == {function.name for function in functions(node)} - {"__init__"}, name


@pytest.mark.parametrize("name", [f"{cls}.{f.name}" for cls, node in CLASSES.items() for f in functions(node)])
def test_functions_take_what_it_says(name: str) -> None:
    owner, _, member = name.partition(".")
    (told,) = (function for function in functions(CLASSES[owner]) if function.name == member)
    if any(isinstance(decorator, ast.Name) and decorator.id == "property" for decorator in told.decorator_list):
        assert inspect.isgetsetdescriptor(getattr(getattr(_native, owner), member))
        return
    found = getattr(_native, owner)
    signature = inspect.signature(found if member == "__init__" else getattr(found, member))
    taken = [
        (
            parameter.name,
            parameter.kind is parameter.KEYWORD_ONLY,
            None if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    assert [entry[:2] for entry in taken] == [entry[:2] for entry in parameters(told)]
    # A default that is no constant of Python's is shown as `...`.
    for (_, _, default), (_, _, says) in zip(taken, parameters(told), strict=True):
        assert default == says or default is ... or (default, says) == ([], ()), name
