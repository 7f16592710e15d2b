"""Asks database functions that read, by one route or another, and page after page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Literal, Protocol, Self, TypedDict, TypeVar, get_args

from signal_persistence.caller import Caller
from signal_persistence.errors import ConfigurationError, InvalidQueryError
from signal_persistence.replica import ReadReplica

T = TypeVar("T")
P = TypeVar("P", bound="Paged")

Route = Literal["edge", "rpc"]
"""Through the Edge Function `query-signals`, or straight to the database function."""

_EDGE: Final = "/functions/v1/query-signals"
_EDGE_NAMES: Final = {
    "query_signals": "",
    "count_signals": "/count",
    "latest_signals": "/latest",
    "signal_facets": "/facets",
}


class ReadOptions(TypedDict, total=False):
    """How fresh an answer has to be.

    It includes all signals up to seq `at_least_seq`: pass the `seq` of a delivery report to read
    what this or another process has written, also where a read replica is behind. A signal's
    status changes and its seq does not, so what has statuses, or is chosen by them, the primary
    answers then.
    """

    at_least_seq: int | None


class Paged(Protocol):
    """What tells whether there is another page."""

    @property
    def next_cursor(self) -> str | None: ...

    @property
    def last_seq(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """What is asked of a database function, and how its answer is read.

    `primary_only` keeps it from a read replica, whose `last_seq` does not tell of statuses.
    """

    function: str
    parameters: Mapping[str, Any]
    decode: Callable[[bytes], T]
    at_least_seq: int = 0
    primary_only: bool = False

    def after(self, page: Paged) -> Self | None:
        """Return what asks for the page behind `page`, as of the same moment or a later one."""
        if page.next_cursor is None:
            return None
        return replace(
            self,
            parameters={**self.parameters, "cursor": page.next_cursor},
            at_least_seq=max(self.at_least_seq, page.last_seq),
        )


class Reader:
    """Gets answers from the read replica, if there is one and it is fresh enough, or the primary.

    Raises what a Caller raises, and InvalidQueryError when even the primary's answer is from
    before the `at_least_seq` of a call.
    """

    def __init__(self, caller: Caller, route: Route, replica: ReadReplica | None = None) -> None:
        if route not in get_args(Route):
            raise ConfigurationError(f"Cannot use transport {route!r}: it is 'edge' or 'rpc'.")
        self._caller = caller
        self._route = route
        self._replica = replica

    async def ask(self, call: Call[T]) -> T:
        """Return the answer."""
        if self._replica and not call.primary_only:
            found = await self._replica.ask(call.function, call.parameters, call.decode)
            if found is not None and _seq_of(found, call) >= call.at_least_seq:
                return found
        answer = await self._caller.call(self._path(call.function), call.parameters, call.decode)
        if _seq_of(answer, call) < call.at_least_seq:
            raise InvalidQueryError(
                f"Cannot read as of seq {call.at_least_seq}: the account, or for latest() its "
                f"rollups, has only come to {_seq_of(answer, call)}."
            )
        return answer

    async def pages(self, call: Call[P]) -> AsyncIterator[P]:
        """Iterate over the page that is asked for and all behind it."""
        following: Call[P] | None = call
        while following is not None:
            page = await self.ask(following)
            yield page
            following = following.after(page)

    async def aclose(self) -> None:
        """Close the connections."""
        try:
            if self._replica:
                await self._replica.aclose()
        finally:
            await self._caller.aclose()

    def _path(self, function: str) -> str:
        if self._route == "rpc":
            return f"/rest/v1/rpc/{function}"
        return _EDGE + _EDGE_NAMES.get(function, "/" + function.replace("_", "-"))


def _seq_of(answer: object, call: Call[Any]) -> int:
    """Up to which seq the answer was made; no seq can be wanted of one that does not tell."""
    seq: int = getattr(answer, "last_seq", call.at_least_seq)
    return seq
