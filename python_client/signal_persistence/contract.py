"""The contract of a signal, read once from the file that Python, TypeScript and SQL share."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final

import msgspec


class Patterns(msgspec.Struct, frozen=True):
    uuid: str
    symbol: str
    timestamp: str
    api_key: str


class Limits(msgspec.Struct, frozen=True):
    batch_signals: int
    batch_bytes: int
    metadata_bytes: int
    price_magnitude: float
    page_size: int
    default_page_size: int
    export_seqs: int
    filter_values: int
    oldest_seconds: int
    future_seconds: int
    trader_name_characters: int
    return_magnitude: float
    reason_characters: int


class CatalogueError(msgspec.Struct, frozen=True):
    status: int
    message: str


class Contract(msgspec.Struct, frozen=True):
    """`contract.json`: field names, allowed words, patterns, limits and the error catalogue."""

    fields: tuple[str, ...]
    required: tuple[str, ...]
    actions: frozenset[str]
    timeframes: frozenset[str]
    statuses: tuple[str, ...]
    sorts: tuple[str, ...]
    close_reasons: tuple[str, ...]
    scopes: tuple[str, ...]
    patterns: Patterns
    limits: Limits
    item_codes: dict[str, str]
    errors: dict[str, CatalogueError]


CONTRACT: Final = msgspec.json.decode(
    files("signal_persistence").joinpath("contract.json").read_bytes(), type=Contract
)
UUID_TEXT: Final = re.compile(CONTRACT.patterns.uuid, re.ASCII)
SYMBOL_TEXT: Final = re.compile(CONTRACT.patterns.symbol, re.ASCII)
TIMESTAMP_TEXT: Final = re.compile(CONTRACT.patterns.timestamp, re.ASCII)
API_KEY_TEXT: Final = re.compile(CONTRACT.patterns.api_key, re.ASCII)
