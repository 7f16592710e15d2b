"""What the subscriber does while the service does not answer, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import pairwise

import msgspec
import pytest

from signal_persistence.async_subscriber import _until_answered
from signal_persistence.caller import Caller
from signal_persistence.coverage import SMALLEST_PAGE, SeqQuery
from signal_persistence.credentials import AccessToken
from signal_persistence.errors import RequestTimeoutError, UnavailableError
from signal_persistence.transport import Response
from tests.client.virtual_time import run

QUERY = SeqQuery(after_seq=7, page_size=1000, doubt=1)


class Busy:
    """A service that refuses for a while, and says when to come back."""

    def __init__(self, refusals: int, retry_after: float) -> None:
        self.asked_at: list[float] = []
        self._refusals = refusals
        self._retry_after = retry_after

    async def post(
        self, path: str, body: bytes, token: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        self.asked_at.append(asyncio.get_running_loop().time())
        if len(self.asked_at) <= self._refusals:
            raise UnavailableError(
                "busy", code="unavailable", status=503, retry_after=self._retry_after
            )
        return Response(200, {}, b"1")

    async def aclose(self) -> None: ...


@pytest.mark.parametrize(("retry_after", "kept"), [(20.0, 20.0), (3600.0, 30.0)])
def test_a_busy_service_is_asked_again_when_it_says_within_half_a_minute(
    retry_after: float, kept: float
) -> None:
    service = Busy(2, retry_after)
    caller = Caller("http://localhost", "", AccessToken("a token"), attempts=1, transport=service)
    run(_until_answered(lambda _: caller.call("/page", {}, msgspec.json.decode)))
    assert service.asked_at == pytest.approx([0, kept, 2 * kept], abs=0.01)


def test_a_page_that_does_not_come_is_asked_for_by_halves_and_waited_for_longer() -> None:
    asked: list[tuple[float, int]] = []

    async def ask(unanswered: int) -> None:
        asked.append((asyncio.get_running_loop().time(), QUERY.page_size_after(unanswered)))
        await asyncio.sleep(3600)

    with pytest.raises(RequestTimeoutError):
        run(_until_answered(ask, attempts=4))
    times, sizes = zip(*asked, strict=True)
    assert sizes == (1000, 500, 250, 125)
    waits = [later - sooner for sooner, later in pairwise(times)]
    assert waits == pytest.approx([5.0, 10.0, 10.0], abs=0.9)


def test_a_page_does_not_become_too_small_and_fits_into_the_room() -> None:
    assert QUERY.page_size_after(60) == SMALLEST_PAGE
    assert SeqQuery(after_seq=7, page_size=4, doubt=1).page_size_after(3) == 4
