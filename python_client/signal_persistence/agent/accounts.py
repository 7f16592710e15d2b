"""Whose signals the agent may send: credentials from its environment or from a file.

They never touch the spool, and a worker never hands its own to the agent.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from signal_persistence.client import credentials_from
from signal_persistence.credentials import ApiKeyCredentials, Credentials, identity_of
from signal_persistence.errors import ConfigurationError

API_KEYS_FILE: Final = "SIGNAL_API_KEYS_FILE"


def accounts_from(environment: Mapping[str, str], url: str, key: str) -> dict[str, Credentials]:
    """Return credentials by the identity that the spool knows an account by.

    SIGNAL_API_KEYS_FILE names a file with an API key of each account; without it the environment
    is that of one account, as for SignalClient.from_env. Raises ConfigurationError.
    """
    if path := environment.get(API_KEYS_FILE):
        return _by_identity(
            ApiKeyCredentials(url, key, api_key) for api_key in read_api_keys(Path(path))
        )
    return _by_identity([credentials_from(environment, url, key)])


def read_api_keys(path: Path) -> list[str]:
    """Return the API keys of a file: one a line, a key names its account, # begins a comment.

    Raises ConfigurationError when it has none, or when others than its owner may read it.
    """
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            _refuse_open_file(path, os.fstat(file.fileno()))
            lines = [line.partition("#")[0].strip() for line in file]
    except OSError as error:
        raise ConfigurationError(f"Cannot read {path}: {error.strerror}.") from None
    keys = [line for line in lines if line]
    if not keys:
        raise ConfigurationError(f"Cannot use {path}: there is no API key in it.")
    return keys


def _by_identity(credentials: Iterable[Credentials]) -> dict[str, Credentials]:
    accounts: dict[str, Credentials] = {}
    for one in credentials:
        identity = identity_of(one)
        if identity is None:
            raise ConfigurationError(
                "Cannot tell whose credentials these are: the agent needs an API key, a user's "
                "access token, or email and password."
            )
        if identity in accounts:
            raise ConfigurationError(
                f"Cannot use two keys of account {identity}: leave one of them in the file."
            )
        accounts[identity] = one
    return accounts


def _refuse_open_file(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (os.geteuid(), 0) or stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigurationError(
            f"Cannot use {path}: it holds secrets, so it must belong to the user of the agent "
            f"and be readable by nobody else; run chmod 600 {path}."
        )
