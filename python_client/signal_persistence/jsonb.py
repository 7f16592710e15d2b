"""How many bytes PostgreSQL needs to print a JSON value as jsonb text.

The database limits metadata by `octet_length(metadata::text)`. Refusing the same values before
they are sent needs the same number: jsonb prints `, ` and `: `, keeps non-ASCII as UTF-8, escapes
only `"`, `\\` and control characters, and prints every number without an exponent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from math import isfinite
from numbers import Integral, Real
from typing import Final

_ESCAPED: Final = re.compile(r'[\x00-\x1f"\\]')
_SHORT_ESCAPES: Final = frozenset('"\\\b\f\n\r\t')
_DEEPEST: Final = 900
"""Nesting that the encoder can still follow on the interpreter's stack."""


class NotJsonbError(ValueError):
    """Cannot store the value as jsonb."""


def jsonb_size(value: object) -> int:
    """Return the octet length of `value`'s jsonb text as it is once sent by this package.

    Raises NotJsonbError for what jsonb cannot hold: NaN, infinities, NUL, unpaired surrogates,
    keys that are not strings, and objects of other types.
    """
    total = 0
    waiting: list[tuple[object, int]] = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > _DEEPEST:
            raise NotJsonbError
        members: Iterable[object]
        if isinstance(item, dict):
            # Brackets, `, ` between the members and `: ` in each.
            total += max(2, 4 * len(item))
            for key in item:
                if not isinstance(key, str):
                    raise NotJsonbError
                total += _string_size(key)
            members = item.values()
        elif isinstance(item, (list, tuple)):
            total += max(2, 2 * len(item))
            members = item
        else:
            return _scalar_size(item)
        for member in members:
            if isinstance(member, (dict, list, tuple)):
                waiting.append((member, depth + 1))
            else:
                total += _scalar_size(member)
    return total


def plain(value: object) -> object:
    """Return subclasses of str and numbers (NumPy scalars, enums) as the plain JSON type."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise NotJsonbError


def _scalar_size(value: object) -> int:
    if isinstance(value, float):
        return _float_size(value)
    if isinstance(value, str):
        return _string_size(value)
    if value is None or value is True:
        return 4
    if value is False:
        return 5
    if isinstance(value, int):
        return len(int.__repr__(value))
    return _scalar_size(plain(value))


def _string_size(text: str) -> int:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return len(text) + 2
    try:
        size = len(text.encode()) + 2
    except UnicodeEncodeError as error:
        raise NotJsonbError from error
    for escaped in _ESCAPED.findall(text):
        if escaped == "\x00":
            raise NotJsonbError
        size += 1 if escaped in _SHORT_ESCAPES else 5
    return size


def _float_size(value: float) -> int:
    if not isfinite(value):
        raise NotJsonbError
    text = float.__repr__(value)
    if "e" in text:
        text = format(Decimal(text), "f")
    return len(text) - (value == 0 and text[0] == "-")
