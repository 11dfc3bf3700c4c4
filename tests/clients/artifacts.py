"""Artifacts that look like compilers', made from a number, so that a test can make them again instead of keeping them."""

from __future__ import annotations

import base64
import json
import random
import string
from math import exp, log

_POOL_BYTES = 8 << 20
_POOL = random.Random(0).randbytes(_POOL_BYTES)
_KEY_ALPHABET = string.ascii_lowercase + "234567"


def size_between(rng: random.Random, smallest: int, largest: int) -> int:
    """A size, small ones being as likely as large ones on a logarithmic scale."""
    return round(exp(rng.uniform(log(smallest), log(largest))))


def random_bytes(number: int, size: int) -> bytes:
    """Incompressible bytes, different for every number, at the price of a copy."""
    head = b"%016x" % number
    begin = number * 7919 % (_POOL_BYTES - size)
    return (head + _POOL[begin : begin + size])[:size] if size > len(head) else head[:size]


def torch_json(number: int, size: int) -> bytes:
    """What PyTorch's remote caches put: JSON around base64 of a pickle, of about `size` bytes.

    Spelled as Python's json.dumps spells it. The pickle is stood in for by source-like text, as most of a real one is.
    """
    rng = random.Random(number)
    lines = [f"    tmp{n} = tl.load(in_ptr{rng.randrange(4)} + ({n}), None).to({number})\n" for n in range(40)]
    body = b"\x80\x05\x95" + random_bytes(number, 256)
    while len(body) < size * 3 // 4 - 40:
        body += rng.choice(lines).encode()
    return json.dumps({"data": base64.b64encode(body).decode("ascii"), "time_taken_ms": rng.randrange(60_000)}).encode()


def fx_key(number: int) -> bytes:
    """A key as PyTorch writes it for an FX graph."""
    rng = random.Random(number)
    return f"pt2:fx-graph-v1::f{''.join(rng.choices(_KEY_ALPHABET, k=51))}:c1".encode()
