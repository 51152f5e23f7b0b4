"""What a Lease says, when it may be taken, and what is written into it. No clock and no network."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

import attrs

#: Keeps the fence of the last lead beside the Lease's own fields, none of which has room for it.
FENCE = "pricefeedd/fence"

#: What a holder that gives the Lease back leaves as its length; client-go does the same.
RELEASED_S = 1

_FENCE = re.compile(r"[0-9]{1,15}")


@attrs.frozen(kw_only=True)
class Record:
    """A Lease, as it was read.

    Attributes:
        version: `resourceVersion`: a write that names another one is refused.
        uid: Of the object; another one has the same name after it was deleted and made again.
        holder: Who leads; "" for nobody.
        length_s: For how long after its last change nobody else may take it; None if it does not say.
        renewed: When it was renewed, by its holder's clock: text that differs after each renewal, and no more.
        acquired: When its holder took it, by the holder's clock.
        transitions: How often it went from one holder to another.
        fence: Of the last lead; 0 if it does not say.
        raw: The whole object: fields that we do not know are written back as they are.
    """

    version: str
    uid: str
    holder: str
    length_s: int | None
    renewed: str
    acquired: str
    transitions: int
    fence: int
    raw: dict[str, Any] = attrs.field(repr=False, eq=False)

    @classmethod
    def read(cls, raw: Any) -> Record:
        """Return what the API server's JSON says.

        Raises:
            ValueError: It is no Lease.
        """
        try:
            metadata, spec = raw["metadata"], raw.get("spec") or {}
            fence = str((metadata.get("annotations") or {}).get(FENCE, ""))
            return cls(
                version=metadata["resourceVersion"],
                uid=metadata.get("uid", ""),
                holder=spec.get("holderIdentity") or "",
                length_s=spec.get("leaseDurationSeconds"),
                renewed=spec.get("renewTime") or "",
                acquired=spec.get("acquireTime") or "",
                transitions=spec.get("leaseTransitions") or 0,
                fence=int(fence) if _FENCE.fullmatch(fence) else 0,
                raw=raw,
            )
        except (KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"not a Lease ({e!r}): {str(raw)[:200]}") from e

    @property
    def released(self) -> bool:
        """Whether its holder gave it back, so that nobody leads by it.

        Somebody who only strikes the holder out, with kubectl say, does not know whether that one has noticed. A holder
        who gives it back writes one time as both (as client-go does), and one who holds it never does.
        """
        short = self.length_s is not None and self.length_s <= RELEASED_S
        return not self.holder and short and self.acquired == self.renewed

    def same_as(self, other: Record | None) -> bool:
        """Return whether nobody renewed or took it in between; labels and the like do not count."""
        return other is not None and (self.uid, self.holder, self.renewed, self.acquired, self.length_s) == (
            other.uid,
            other.holder,
            other.renewed,
            other.acquired,
            other.length_s,
        )


class Sight:
    """When another daemon's lead is over, as far as we have seen.

    Only our own clock counts: a holder leads for at most the Lease's length after its last change, and that change was
    made before we saw it. What the Lease says about the time is by the clock of somebody else.

    Attributes:
        record: What was seen last; None for no Lease.
        fence: The greatest one ever seen.
    """

    def __init__(self, lease_s: float) -> None:
        """Begin to look.

        Args:
            lease_s: How long a lead may last of which the Lease does not say it.
        """
        self.record: Record | None = None
        self.fence = 0
        self._lease_s = lease_s
        self._free_at: float | None = None  # None before anything was seen

    def see(self, record: Record | None, now: float) -> None:
        """Note what the Lease is now: the time is that of our own clock, once the answer was there."""
        before = self.record
        self.record = record
        if record is None:
            # It may have been deleted while somebody leads by it, who does not know that yet.
            if before is not None:
                self._free_at = now + max(self._lease_s, self._length_s(before))
            elif self._free_at is None:
                self._free_at = now + self._lease_s
            return
        self.fence = max(self.fence, record.fence)
        if self._free_at is None or not record.same_as(before):
            self._free_at = now if record.released else now + self._length_s(record)

    def _length_s(self, record: Record) -> float:
        """Return how long its holder may lead without renewing it."""
        if record.length_s is None or not record.holder:
            return max(self._lease_s, float(record.length_s or 0))
        return float(record.length_s)

    @property
    def free_at(self) -> float:
        """When nobody leads any more by what was seen last; never, before anything was seen."""
        return math.inf if self._free_at is None else self._free_at

    def next_fence(self, wall_ms: int) -> int:
        """Return the fence of the next lead: greater than all before it, even if the Lease was deleted since.

        It is the time of the lead's beginning, ms since the Unix epoch, or one more than the last fence if a clock went
        back in between. What remains is that the Lease is deleted, nobody who has seen it runs any more, and a clock
        goes back, all three at once.
        """
        return max(self.fence + 1, wall_ms)


def micro_time(wall_us: int) -> str:
    """Return a time in the only form that the API server takes, from µs since the Unix epoch."""
    return datetime.fromtimestamp(wall_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + (
        f"{wall_us % 1_000_000:06d}Z"
    )


def taken(
    record: Record | None,
    *,
    name: str,
    namespace: str,
    holder: str,
    lease_s: float,
    fence: int,
    acquired_us: int,
    renewed_us: int,
) -> dict[str, Any]:
    """Return the Lease to write for who takes or renews it; the API server counts its length in whole seconds."""
    spec = {
        "holderIdentity": holder,
        "leaseDurationSeconds": math.ceil(lease_s),
        "acquireTime": micro_time(acquired_us),
        "renewTime": micro_time(renewed_us),
        "leaseTransitions": _transitions(record, holder),
    }
    return _written(record, spec, {"name": name, "namespace": namespace}, fence)


def released(record: Record, *, fence: int, wall_us: int) -> dict[str, Any]:
    """Return the Lease to write for who gives it back."""
    now = micro_time(wall_us)
    spec = {
        "holderIdentity": "",
        "leaseDurationSeconds": RELEASED_S,
        "acquireTime": now,
        "renewTime": now,
        "leaseTransitions": record.transitions,
    }
    return _written(record, spec, {}, fence)


def _transitions(record: Record | None, holder: str) -> int:
    """Return how often it changed hands; an int32, that nothing of ours depends on."""
    if record is None:
        return 0
    return min(record.transitions + (record.holder != holder), 2**31 - 1)


def _written(
    record: Record | None, spec: dict[str, Any], metadata: dict[str, Any], fence: int
) -> dict[str, Any]:
    old = {} if record is None else record.raw
    metadata = {**metadata, **old.get("metadata", {})}
    metadata.pop("managedFields", None)  # the server's own notes, longer than all the rest
    metadata["annotations"] = {**(metadata.get("annotations") or {}), FENCE: str(fence)}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": {**(old.get("spec") or {}), **spec},
    }
