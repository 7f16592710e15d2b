"""What every session of one Realtime shares."""

from __future__ import annotations

from dataclasses import dataclass

from local_stack.realtime.authorization import Authenticator, Authorization
from local_stack.realtime.channels import Hub
from local_stack.realtime.faults import Faults
from local_stack.realtime.limits import Limits
from local_stack.realtime.quotas import Usage
from local_stack.realtime.tail import Tail


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a server that its sessions use."""

    authenticator: Authenticator
    authorization: Authorization
    hub: Hub
    tail: Tail
    limits: Limits
    faults: Faults
    usage: Usage

    @property
    def payload_bytes(self) -> int:
        """The largest payload of a broadcast."""
        return self.usage.payload_bytes(self.limits.payload_bytes)
