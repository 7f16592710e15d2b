"""The disk log of a producer: what publish() accepted is in a file before it returns.

A slot is the directory of one process that publishes. Its log holds the signals, its journal the
batches they were sent in. `python_client/README.md` says what survives what.
"""

from signal_persistence.spool.dead_letters import DeadLetter, DeadLetters
from signal_persistence.spool.frames import Frame
from signal_persistence.spool.journal import Journal, JournalBatch, JournalState, Part, read_journal
from signal_persistence.spool.log import Log
from signal_persistence.spool.ranges import Ranges, compact, expand
from signal_persistence.spool.reader import LogReader
from signal_persistence.spool.segments import Damage
from signal_persistence.spool.settings import FsyncPolicy, SpoolSettings
from signal_persistence.spool.slots import (
    Recovery,
    SenderSlot,
    Slot,
    SlotInfo,
    default_spool_directory,
    list_slots,
    project_directory,
)

__all__ = [
    "Damage",
    "DeadLetter",
    "DeadLetters",
    "Frame",
    "FsyncPolicy",
    "Journal",
    "JournalBatch",
    "JournalState",
    "Log",
    "LogReader",
    "Part",
    "Ranges",
    "Recovery",
    "SenderSlot",
    "Slot",
    "SlotInfo",
    "SpoolSettings",
    "compact",
    "default_spool_directory",
    "expand",
    "list_slots",
    "project_directory",
    "read_journal",
]
