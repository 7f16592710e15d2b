"""Whose signals an agent may send: a file of API keys, or the environment of one account."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from signal_persistence import ConfigurationError
from signal_persistence.agent.accounts import accounts_from
from tests.client.agent.storing_service import api_key_of, token_of

URL = "http://127.0.0.1:1"


def key_file(folder: Path, text: str, mode: int = 0o600) -> dict[str, str]:
    """Return the environment that names a file of keys."""
    path = folder / "keys"
    path.write_text(text)
    path.chmod(mode)
    return {"SIGNAL_API_KEYS_FILE": str(path)}


def test_a_file_has_a_key_a_line_and_each_names_its_account(tmp_path: Path) -> None:
    one, two = UUID(int=1), UUID(int=2)
    text = f"# momentum\n{api_key_of(one)}  # until May\n\n{api_key_of(two)}\n"
    assert set(accounts_from(key_file(tmp_path, text), URL, "key")) == {str(one), str(two)}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    environment = key_file(tmp_path, api_key_of(UUID(int=1)), mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        accounts_from(environment, URL, "key")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing yet\n", "no API key"),
        ("sgk_short\n", "API key"),
        (f"{api_key_of(UUID(int=1))}\n" * 2, "two keys of account"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_without_showing_it(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as refused:
        accounts_from(key_file(tmp_path, text), URL, "key")
    assert "0000000000" not in str(refused.value).replace(str(UUID(int=1)), "")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere"):
        accounts_from({"SIGNAL_API_KEYS_FILE": str(tmp_path / "nowhere")}, URL, "key")


def test_without_a_file_the_environment_is_that_of_one_account() -> None:
    account = UUID(int=5)
    assert list(accounts_from({"SIGNALS_ACCESS_TOKEN": token_of(account)}, URL, "key")) == [
        str(account)
    ]
    with pytest.raises(ConfigurationError, match="SIGNAL_API_KEY"):
        accounts_from({}, URL, "key")
    with pytest.raises(ConfigurationError, match="whose credentials"):
        accounts_from({"SIGNALS_ACCESS_TOKEN": "opaque"}, URL, "key")
