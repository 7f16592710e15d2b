"""Durable trading signals on Supabase: publish, follow live and query."""

from signal_persistence.credentials import AccessToken, Credentials, PasswordCredentials
from signal_persistence.errors import SignalPersistenceError
from signal_persistence.signal import Signal, StoredSignal

__all__ = [
    "AccessToken",
    "Credentials",
    "PasswordCredentials",
    "Signal",
    "SignalPersistenceError",
    "StoredSignal",
]
