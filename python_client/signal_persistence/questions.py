"""What can be asked of stored signals: options of callers in, calls of database functions out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Literal, TypeVar, cast

import msgspec

from signal_persistence import frames
from signal_persistence.contract import CONTRACT
from signal_persistence.errors import InvalidQueryError
from signal_persistence.reader import Call, ReadOptions
from signal_persistence.reading import (
    Facets,
    Page,
    RowPage,
    SignalCount,
    SignalFilter,
    SignalFilterOptions,
    SubjectOptions,
    distinct,
    one_of,
    require_known,
    utc_text,
    whole_number,
)
from signal_persistence.signal import StoredSignal

T = TypeVar("T")

Sort = Literal["newest", "oldest", "seq", "-seq", "confidence", "-confidence", "symbol", "-symbol"]
"""By time, by seq, by confidence or by symbol; a minus is descending. What is equal comes newest
first."""

_FIELDS: Final = StoredSignal.__struct_fields__
_CHANGING_FIELDS: Final = frozenset({"status", "outcome"})
_decode_page: Final = msgspec.json.Decoder(Page).decode
_decode_rows: Final = msgspec.json.Decoder(RowPage).decode
_decode_count: Final = msgspec.json.Decoder(SignalCount).decode
_decode_facets: Final = msgspec.json.Decoder(Facets).decode


class ExportFilter(SignalFilterOptions, total=False):
    """Which signals; everything left out is unrestricted.

    `from_` is inclusive and `to` exclusive, both aware datetimes compared with `generated_at`.
    `statuses` are those of the moment of the answer.
    """

    statuses: Iterable[str] | None
    from_: datetime | None
    to: datetime | None


class Selection(ExportFilter, total=False):
    """Which signals, with `after_seq` exclusive and `until_seq` inclusive."""

    after_seq: int | None
    until_seq: int | None


class QueryOptions(Selection, ReadOptions, total=False):
    """What a query may ask for.

    `sort` is "newest" by default, and "seq" with `after_seq`. By confidence or symbol, only so many
    signals can be sorted: narrow `from_` and `to` when the service says `query_too_wide`.
    """

    sort: Sort | None
    page_size: int | None


class LatestOptions(SubjectOptions, ReadOptions, total=False):
    """Of which traders and symbols the newest signals are wanted, none from before `from_`."""

    from_: datetime | None
    page_size: int | None


def page_call(options: QueryOptions, cursor: str | None = None) -> Call[Page]:
    """Return what asks for a page; raise InvalidQueryError for what cannot work."""
    require_known(options, QueryOptions)
    parameters = query_parameters(options)
    if cursor is not None:
        parameters["cursor"] = cursor
    return _as_fresh_as(options, Call("query_signals", parameters, _decode_page))


def rows_call(fields: Iterable[str], options: QueryOptions) -> Call[RowPage]:
    """Return what asks for some fields of the signals of a page."""
    require_known(options, QueryOptions)
    wanted = _field_names(fields)
    call = Call("query_signals", {**query_parameters(options), "fields": wanted}, _decode_rows)
    has_status = options.get("statuses") is not None or not _CHANGING_FIELDS.isdisjoint(wanted)
    return _as_fresh_as(options, call, has_status=has_status)


def lifecycle_call(filter_: ExportFilter) -> Call[frames.LifecyclePage]:
    """Return what asks for all fields of a page, to be put into columns."""
    require_known(filter_, ExportFilter)
    page = {"sort": "seq", "page_size": CONTRACT.limits.page_size}
    parameters = {**filter_parameters(filter_), **page}
    return Call("query_signals", parameters, frames.decode_page, primary_only=True)


def latest_call(options: LatestOptions) -> Call[Page]:
    """Return what asks for a page of the newest signals of each trader and symbol."""
    require_known(options, LatestOptions)
    parameters = filter_parameters(cast(ExportFilter, options))
    parameters["page_size"] = _page_size(options.get("page_size"))
    return _as_fresh_as(options, Call("latest_signals", parameters, _decode_page))


def count_call(exact: bool, options: Selection) -> Call[SignalCount]:
    """Return what asks how many signals there are."""
    require_known(options, Selection)
    parameters = {**selection_parameters(options), "exact": exact}
    return Call("count_signals", parameters, _decode_count)


def facets_call(options: Selection) -> Call[Facets]:
    """Return what asks how many signals there are of each symbol, trader, action and timeframe."""
    require_known(options, Selection)
    return Call("signal_facets", selection_parameters(options), _decode_facets)


def query_parameters(options: QueryOptions) -> dict[str, Any]:
    """Return the parameters of `query_signals`; raise InvalidQueryError for what cannot work."""
    parameters = selection_parameters(options)
    sort, page_size = options.get("sort"), options.get("page_size")
    if sort is not None:
        if sort not in CONTRACT.sorts:
            raise InvalidQueryError(
                f"Cannot sort by {sort!r}: use one of {', '.join(CONTRACT.sorts)}."
            )
        parameters["sort"] = sort
    if page_size is not None:
        parameters["page_size"] = _page_size(page_size)
    return parameters


def selection_parameters(options: Selection) -> dict[str, Any]:
    """Return the parameters that say which signals, seqs included; raises as `query_parameters`."""
    parameters = filter_parameters(options)
    for name, seq in (
        ("after_seq", options.get("after_seq")),
        ("until_seq", options.get("until_seq")),
    ):
        if seq is not None:
            parameters[name] = _seq(name, seq)
    return parameters


def filter_parameters(options: ExportFilter) -> dict[str, Any]:
    """Return the parameters that say which signals; raises as `query_parameters`."""
    parameters = SignalFilter.of(options).parameters()
    status = one_of("status", CONTRACT.statuses.__contains__)
    if statuses := distinct("statuses", options.get("statuses"), status):
        parameters["statuses"] = sorted(statuses)
    for name, option in (("from", options.get("from_")), ("to", options.get("to"))):
        if option is not None:
            parameters[name] = utc_text(name, option)
    return parameters


def in_large_pages(options: QueryOptions) -> QueryOptions:
    """When all pages are wanted, the fewest are the fastest."""
    return {**options, "page_size": _page_size(options.get("page_size"))}


def _as_fresh_as(options: ReadOptions, call: Call[T], *, has_status: bool = True) -> Call[T]:
    """Return the call for an answer that is as fresh as the options say."""
    at_least_seq = options.get("at_least_seq")
    if at_least_seq is None:
        return call
    seq = _seq("at_least_seq", at_least_seq)
    return replace(call, at_least_seq=seq, primary_only=has_status)


def _seq(name: str, value: object) -> int:
    seq = whole_number(name, value)
    if seq < 0:
        raise InvalidQueryError(f"Cannot query {name} {seq}: it must be 0 or more.")
    return seq


def _page_size(value: object) -> int:
    """The size of a page that was asked for, or the largest."""
    largest = CONTRACT.limits.page_size
    size = largest if value is None else whole_number("page_size", value)
    if not 1 <= size <= largest:
        raise InvalidQueryError(f"Cannot query page_size {size}: it must be from 1 to {largest}.")
    return size


def _field_names(fields: Iterable[str]) -> list[str]:
    if isinstance(fields, str) or not isinstance(fields, Iterable):
        raise InvalidQueryError(f"Cannot read the fields {fields!r}: pass a list of names.")
    wanted = list(fields)
    for name in wanted:
        if name not in _FIELDS:
            raise InvalidQueryError(
                f"Cannot read the field {name!r} of signals: there are {', '.join(_FIELDS)}."
            )
    if not wanted:
        raise InvalidQueryError("Cannot read rows without fields: name one at least.")
    return sorted(set(wanted))
