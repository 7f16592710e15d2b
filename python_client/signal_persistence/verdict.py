"""The service's verdict about one batch, and what it says about each signal."""

from __future__ import annotations

from uuid import UUID

import msgspec

from signal_persistence.batch import Batch
from signal_persistence.delivery import Fate
from signal_persistence.errors import ConnectionLostError
from signal_persistence.transport import Response


class VerdictItem(msgspec.Struct, frozen=True):
    """One signal that was not accepted; `index` counts from 0 in the batch."""

    index: int
    code: str
    message: str


class Verdict(msgspec.Struct, frozen=True):
    """What became of each signal of a batch; accepted ones have consecutive seq in batch order."""

    request_id: UUID
    accepted: int
    duplicate: int
    rejected: int
    first_seq: int | None
    last_seq: int | None
    items: list[VerdictItem]

    def fits(self, batch: Batch) -> bool:
        """Check that this is the answer to `batch` and that its counts agree with its items."""
        indexes = {item.index for item in self.items}
        duplicates = sum(item.code == "duplicate" for item in self.items)
        return (
            self.request_id == batch.request_id
            and self.accepted + self.duplicate + self.rejected == len(batch.records)
            and len(indexes) == len(self.items) == self.duplicate + self.rejected
            and duplicates == self.duplicate
            and indexes <= set(range(len(batch.records)))
            and (self.accepted == 0 or self.first_seq is not None)
        )

    def fates(self) -> list[Fate]:
        """Return what became of each signal of the batch, in its order."""
        items = {item.index: item for item in self.items}
        next_seq = self.first_seq or 0
        fates = []
        for index in range(self.accepted + self.duplicate + self.rejected):
            item = items.get(index)
            if item is None:
                fates.append(Fate("accepted", None, None, next_seq))
                next_seq += 1
            elif item.code == "duplicate":
                fates.append(Fate("duplicate", item.code, item.message))
            else:
                fates.append(Fate("rejected", item.code, item.message))
        return fates

    def first_rate_limited(self) -> int:
        """The index of the first signal that the service takes in another minute; else the count.

        Everything from there on is to be sent again, so that the order stays.
        """
        count = self.accepted + self.duplicate + self.rejected
        return min(
            (item.index for item in self.items if item.code == "rate_limited"), default=count
        )


def read_verdict(response: Response, batch: Batch) -> Verdict:
    """Read the answer to `batch`.

    Raises the ApiError that it spells. An answer that is neither a verdict about this batch nor an
    error (a proxy's page, a cut body) raises ConnectionLostError: the batch may be stored.
    """
    if response.status >= 400:
        raise response.error()
    try:
        verdict = msgspec.json.decode(response.body, type=Verdict)
    except (msgspec.DecodeError, UnicodeDecodeError):
        verdict = None
    if response.status != 200 or verdict is None or not verdict.fits(batch):
        raise ConnectionLostError(
            f"Cannot read the answer to the batch (HTTP status {response.status}): "
            "it may be stored, so it is sent again."
        )
    return verdict
