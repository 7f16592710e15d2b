"""What callers hear while the database is down, on a stack of this test's own."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx
import pytest

from local_stack import control
from local_stack.keys import Keys
from local_stack.settings import StackSettings
from tests.functions.worker import TIMEOUT_SECONDS, Worker, batch
from tests.plugins.stack import PASSWORD, Account, RunningStack, new_test_settings

DEADLINE_SECONDS = 60
T = TypeVar("T")


@pytest.fixture
def own_stack() -> Iterator[RunningStack]:
    settings = new_test_settings("-down")
    attached = control.up(settings, attached=True)
    try:
        settings = StackSettings.load(settings.directory)
        keys = Keys.load(settings)
        yield RunningStack(settings, keys.anon_key, keys.service_role_key)
    finally:
        if attached is not None:
            attached.close()
        control.remove(settings)


@pytest.fixture
def lone_worker(own_stack: RunningStack) -> Iterator[Worker]:
    with httpx.Client(base_url=own_stack.api_url, timeout=TIMEOUT_SECONDS) as http:
        email = f"{uuid.uuid4().hex}@example.com"
        answer = http.post(
            "/auth/v1/signup",
            headers={"apikey": own_stack.publishable_key},
            json={"email": email, "password": PASSWORD},
        )
        answer.raise_for_status()
        user_id, token = uuid.UUID(answer.json()["user"]["id"]), answer.json()["access_token"]
        yield Worker.start(http, own_stack, Account(user_id, email, PASSWORD, token))


def test_a_batch_is_put_off_while_the_database_is_down_and_stored_once_when_it_is_back(
    lone_worker: Worker,
) -> None:
    assert lone_worker.ingest(batch([lone_worker.signal(0)])).status_code == 200
    sent = batch([lone_worker.signal(1), lone_worker.signal(2, price="high")])
    with database_down(lone_worker.stack.settings):
        for _ in range(3):
            assert_put_off(lone_worker.ingest(sent), sent["request_id"])
            assert_put_off(lone_worker.query())
    verdict = eventually(lambda: accepted(lone_worker.ingest(sent)))
    assert (verdict.json()["accepted"], verdict.json()["rejected"]) == (1, 1)
    assert lone_worker.ingest(sent).content == verdict.content
    assert [stored["seq"] for stored in lone_worker.stored()] == [1, 2]


def assert_put_off(answer: httpx.Response, request_id: str | None = None) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.json()["code"] == "unavailable"
    assert int(answer.headers["retry-after"]) >= 1
    if request_id is not None:
        assert answer.json()["request_id"] == request_id


def accepted(answer: httpx.Response) -> httpx.Response | None:
    if answer.status_code == 200:
        return answer
    assert_put_off(answer)
    return None


@contextmanager
def database_down(settings: StackSettings) -> Iterator[None]:
    """Kill the server, and hide what it cannot start without until the block ends."""
    control_file = settings.data_directory / "global" / "pg_control"
    hidden = control_file.with_suffix(".hidden")
    control_file.rename(hidden)
    try:
        pid = control.status(settings)["services"]["database"]["pid"]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: restarted_from(settings, pid))
        yield
    finally:
        hidden.rename(control_file)


def restarted_from(settings: StackSettings, pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return False
    return bool(control.status(settings)["services"]["database"]["restarts"])


def eventually(ask: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"not within {DEADLINE_SECONDS} s")
