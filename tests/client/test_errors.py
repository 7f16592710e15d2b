"""The error tree is what its drawing says, and no error tells a secret."""

from __future__ import annotations

import inspect

import pytest

from signal_persistence import errors
from signal_persistence.contract import CONTRACT
from signal_persistence.delivery import DeliveryReport
from signal_persistence.errors import (
    BufferFullError,
    ConnectError,
    ConnectionLostError,
    InvalidSignalError,
    RequestTimeoutError,
    SignalPersistenceError,
    UnavailableError,
    UndeliveredError,
)
from tests.client.scripted_service import make_signal

CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, SignalPersistenceError)
]


def drawn_tree() -> dict[str, str]:
    """Read child → parent from the drawing on top of the module."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        name = line.lstrip(" ├└─│").split(" ")[0]
        if name.endswith("Error") and line.startswith("    "):
            depth = (len(line) - len(line.lstrip(" ├└─│")) - 4) // 4
            path[depth:] = [name]
            if depth:
                parents[name] = path[depth - 1]
    return parents


def test_the_drawing_shows_every_error_below_its_parent() -> None:
    actual = {
        kind.__name__: kind.__mro__[1].__name__
        for kind in CLASSES
        if kind is not SignalPersistenceError
    }
    assert drawn_tree() == actual


@pytest.mark.parametrize("kind", CLASSES)
def test_the_docstring_of_an_error_says_what_cannot_be_done(
    kind: type[SignalPersistenceError],
) -> None:
    assert kind.__doc__
    assert kind is SignalPersistenceError or kind.__doc__.startswith("Cannot ")


def test_the_docstring_is_the_message_when_nothing_better_is_known() -> None:
    assert str(ConnectError()) == ConnectError.__doc__


def test_an_invalid_signal_names_its_code_its_field_and_the_rule() -> None:
    error = InvalidSignalError("invalid_stop_loss")
    assert error.code == "invalid_stop_loss"
    assert error.field == "stop_loss"
    assert CONTRACT.item_codes["invalid_stop_loss"] in str(error)
    assert InvalidSignalError("unknown_field").field is None


def test_only_errors_after_which_the_work_may_be_done_are_in_doubt() -> None:
    assert not ConnectError().in_doubt
    assert RequestTimeoutError().in_doubt
    assert ConnectionLostError().in_doubt
    assert UnavailableError(status=503).in_doubt
    assert not UnavailableError(status=429).in_doubt


@pytest.mark.parametrize("reason", ["backpressure", "disconnected", "callbacks"])
def test_a_full_buffer_says_why(reason: str) -> None:
    assert BufferFullError(reason).reason == reason
    assert isinstance(BufferFullError(reason), BufferError)


def test_an_undelivered_error_counts_what_is_left_and_what_is_in_doubt() -> None:
    reports = [
        DeliveryReport(make_signal(number), None, "failed", in_doubt=number == 0)
        for number in range(3)
    ]
    error = UndeliveredError(reports)
    assert "3 signals" in str(error)
    assert "1 of them may be stored" in str(error)
    assert error.in_doubt
    assert error.reports == tuple(reports)
