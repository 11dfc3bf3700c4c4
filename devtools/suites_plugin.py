"""Has pytest skip the tests of redis-py that tests/suites/redis-py.txt leaves out, each with its reason."""

from __future__ import annotations

import re

import pytest

from devtools.suites import LISTS, entries


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons = [(reason, re.compile(name)) for reason, name in entries(LISTS / "redis-py.txt") if reason != "file"]
    for item in items:
        function = item.name.partition("[")[0]
        for reason, name in reasons:
            if name.fullmatch(function):
                item.add_marker(pytest.mark.skip(reason=f"out of scope: {reason}"))
