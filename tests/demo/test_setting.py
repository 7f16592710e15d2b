"""A demonstration keeps away from what is not its own."""

from __future__ import annotations

import pytest

from demo import setting


def test_the_default_stack_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setting, "STACK_NAME", "default")
    with pytest.raises(setting.DemoError, match="Cannot use the default stack"):
        setting.start_stack()


def test_two_demonstrations_never_share_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setting, "STACK_NAME", "test-lock")
    try:
        with (
            setting.only_one_at_a_time(),
            pytest.raises(setting.DemoError, match="another one uses the same stack"),
            setting.only_one_at_a_time(),
        ):
            pass
        with setting.only_one_at_a_time():
            pass
    finally:
        (setting.REPOSITORY / ".stack" / "test-lock.demo-lock").unlink()
