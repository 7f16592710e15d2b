"""The fault proxy does what each fault's name says, and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.client.faults import fault_proxy
from tests.client.faults.fault_proxy import FAULTS, Fault, FaultProxy, no_fault
from tests.client.loopback_service import LoopbackService, accept_all

BATCH = json.dumps({"request_id": "r", "signals": [{"n": n} for n in range(100)]}).encode()
DONE = {"reset_before": 0, "reset_in_request": 0, "refuse": 0, "stall_before": 0, "send_twice": 2}
DONE |= {"answer_502": 0, "answer_503": 0, "answer_403": 0}
"""How often the service works on the request; the others have it done once."""
BROKEN = (httpx.HTTPError, json.JSONDecodeError)


@pytest.fixture
def service() -> Iterator[LoopbackService]:
    with LoopbackService(accept_all) as service:
        yield service


@pytest.fixture
def proxy(service: LoopbackService) -> Iterator[FaultProxy]:
    with FaultProxy(service.port) as proxy:
        yield proxy


def post(proxy: FaultProxy) -> object:
    """Post the batch over a new connection and return the verdict."""
    with httpx.Client(timeout=0.5) as client:
        return post_by(client, proxy)


def post_by(client: httpx.Client, proxy: FaultProxy) -> object:
    """Post the batch and return the verdict; raises what a client would meet."""
    return client.post(proxy.url, content=BATCH).raise_for_status().json()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_hits_one_request_and_the_work_is_done_as_often_as_it_says(
    service: LoopbackService, proxy: FaultProxy, fault: Fault
) -> None:
    proxy.play([fault])
    harmless = {"answer_slowly", "throttle", "send_twice", "hint_early"}
    if fault.__name__ in harmless:
        assert post(proxy) == accepted()
    else:
        with pytest.raises(BROKEN):
            post(proxy)
    proxy.finish_late_work()
    done = [request for request in service.received if request.body == BATCH]
    assert len(done) == DONE.get(fault.__name__, 1)
    assert post(proxy) == accepted()


def test_nobody_listens_while_connections_are_refused(proxy: FaultProxy) -> None:
    proxy.play([fault_proxy.refuse])
    with pytest.raises(httpx.ReadError):
        post(proxy)
    with pytest.raises(httpx.ConnectError, match="refused"):
        post(proxy)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            assert post(proxy) == accepted()
        except httpx.ConnectError:
            continue
        return
    pytest.fail("the proxy does not listen again")


def test_a_connection_serves_many_requests(service: LoopbackService, proxy: FaultProxy) -> None:
    proxy.play([no_fault] * 3)
    with httpx.Client() as client:
        for _ in range(5):
            assert post_by(client, proxy) == accepted()
    assert proxy.requests == proxy.forwarded == len(service.received) == 5


def accepted() -> dict[str, object]:
    return {
        "request_id": "r",
        "accepted": 100,
        "duplicate": 0,
        "rejected": 0,
        "first_seq": 1,
        "last_seq": 100,
        "items": [],
    }
