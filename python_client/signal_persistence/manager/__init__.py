"""`SignalManager`: signals in memory, in the database, or in both while you move over."""

from signal_persistence.manager.book import ManagedSignal, Mode
from signal_persistence.manager.differences import Difference, DifferenceReport
from signal_persistence.manager.lifecycle import Status
from signal_persistence.manager.manager import ManagerStats, ModeFlag, SignalManager, SignalRef
from signal_persistence.manager.store import SignalStore, SupabaseStore

__all__ = [
    "Difference",
    "DifferenceReport",
    "ManagedSignal",
    "ManagerStats",
    "Mode",
    "ModeFlag",
    "SignalManager",
    "SignalRef",
    "SignalStore",
    "Status",
    "SupabaseStore",
]
