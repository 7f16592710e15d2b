"""One local stack per test session, and accounts on it made through the public HTTP API."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from local_stack import control, ports
from local_stack.keys import Keys
from local_stack.settings import PUBLISHABLE_KEY, SECRET_KEY, StackSettings

REUSE_VARIABLE = "SIGNAL_TEST_STACK"
"""Names a running stack to test against instead of starting one: a fast loop while developing."""
PASSWORD = "correct horse battery staple"
LOG_LINES = 20


@dataclass(frozen=True, slots=True)
class RunningStack:
    """What a test may know of the stack it runs against."""

    settings: StackSettings
    anon_key: str
    service_role_key: str
    publishable_key: str = PUBLISHABLE_KEY
    secret_key: str = SECRET_KEY

    @property
    def api_url(self) -> str:
        return self.settings.api_url

    @property
    def database_url(self) -> str:
        """The role `postgres`, as a migration has it; for other roles see `settings.socket_dsn`."""
        return self.settings.database_url


@dataclass(frozen=True, slots=True)
class Account:
    """A signed-up user and the token of its first session."""

    account_id: uuid.UUID
    email: str
    password: str
    access_token: str


MakeAccount = Callable[..., Account]
_running_stack = pytest.StashKey[StackSettings]()


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config) -> Iterator[RunningStack]:
    """A stack with the migrations applied, gone when the session ends in whatever way."""
    if name := os.environ.get(REUSE_VARIABLE):
        settings = StackSettings.load(StackSettings(name=name).directory)
        if not control.is_running(settings):
            pytest.fail(f"Cannot reuse stack {name}: it is not running; scripts/stack up starts it")
        pytestconfig.stash[_running_stack] = settings
        yield _describe(settings)
        return
    remove_abandoned_stacks(Path(StackSettings().state_root))
    settings = new_test_settings()
    pytestconfig.stash[_running_stack] = settings
    attached = control.up(settings, attached=True)
    try:
        yield _describe(StackSettings.load(settings.directory))
    finally:
        if attached is not None:
            attached.close()
        control.remove(settings)


@pytest.fixture(scope="session")
def make_account(stack: RunningStack) -> MakeAccount:
    """Sign a new user up, as an application would, and give the account its tier."""

    def make(tier: str = "free") -> Account:
        email = f"{uuid.uuid4().hex}@example.com"
        with httpx.Client(base_url=stack.api_url, timeout=10) as client:
            answer = client.post(
                "/auth/v1/signup",
                headers={"apikey": stack.publishable_key},
                json={"email": email, "password": PASSWORD},
            )
            answer.raise_for_status()
            session = answer.json()
            account_id = uuid.UUID(session["user"]["id"])
            client.post(
                "/rest/v1/rpc/set_account_tier",
                headers={
                    "apikey": stack.service_role_key,
                    "authorization": f"Bearer {stack.service_role_key}",
                },
                json={"account_id": str(account_id), "tier": tier},
            ).raise_for_status()
        return Account(account_id, email, PASSWORD, session["access_token"])

    return make


@pytest.fixture
def account(make_account: MakeAccount) -> Account:
    """A new account of the free tier."""
    return make_account()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of the stack's logs below a test that failed."""
    report = yield
    settings = item.config.stash.get(_running_stack, None)
    if settings is None or not report.failed or "stack" not in getattr(item, "fixturenames", ()):
        return report
    for service in control.services_with_logs(settings):
        if lines := control.tail(settings, service, LOG_LINES):
            report.sections.append((f"stack: last lines of {service}", "\n".join(lines)))
    return report


def new_test_settings(label: str = "") -> StackSettings:
    """Return settings of a stack of this process, on free ports, without fsync."""
    api_port, database_port = ports.choose(2)
    return StackSettings(
        name=f"test-{os.getpid()}{label}-{uuid.uuid4().hex[:6]}",
        api_port=api_port,
        database_port=database_port,
        durable=False,
    )


def remove_abandoned_stacks(root: Path) -> None:
    """Delete the folders of test processes that were killed; their stacks ended with them."""
    for folder in root.glob("test-*"):
        process = folder.name.split("-")[1]
        if not Path("/proc", process).exists() and (folder / "stack.json").exists():
            control.remove(StackSettings.load(folder))


def _describe(settings: StackSettings) -> RunningStack:
    keys = Keys.load(settings)
    return RunningStack(settings, keys.anon_key, keys.service_role_key)
