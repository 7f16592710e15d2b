"""Every bound of the Realtime stand-in, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one socket, one channel and one message may cost. Sizes in bytes, times in seconds."""

    frame_bytes: int = 5_000_000
    """A larger frame from a client closes its socket with 1009."""
    payload_bytes: int = 3_000_500
    """The payload of one broadcast: 3,000 KB and the tolerance that hosted Realtime adds."""
    channels_per_socket: int = 100
    outgoing_frames: int = 4_096
    outgoing_bytes: int = 8_000_000
    """What may wait for a socket that does not read; one frame more closes it with 1011."""
    close_seconds: float = 2.0
    """How long a peer may take to answer a close before its connection is cut."""
    idle_seconds: float = 60.0
    """A socket that sends nothing, not even a heartbeat, is closed with 1000."""
    no_channel_seconds: float = 600.0
    token_check_seconds: float = 300.0
    """A channel looks at its token's expiry at least this often."""
    first_tail_seconds: float = 1.0
    """How long the first clients wait for the database to be followed."""
    replication_ready_seconds: float = 15.0
    database_seconds: float = 5.0
    """The deadline of one permission check or one replay."""
    database_connections: int = 4
    rate_bucket_seconds: float = 5.0
    """A plan's rates are averages of up to 12 of these."""
