"""What the load test saw, and how it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import attrs

#: Of a spread of times: µs, rounded down to this above 10 ms, to how often it was seen.
COARSE_US = 100


@attrs.define
class Figures:
    """What one process saw, and then all together.

    Attributes:
        connected: Connections that had their `welcome`, of all that were wanted.
        failed: Attempts that failed, by reason.
        welcome_us: From dialling to `welcome`.
        ack_us: From the first request to the last acknowledgement.
        messages: Messages with a number.
        past: Of those, the ones older than their subscription, of which no latency is taken.
        recv_us: From the daemon's receipt (`ts_recv`) to ours.
        event_us: From the venue's clock (`ts_event`) to ours.
        lost: Numbers that are missing without a word, by topic.
        unsettled: Numbers of state that were passed over just before the end; the word may have been on its way.
        conflated: States that the daemon said it passed over.
        gap_seqs: Numbers that the daemon said it dropped.
        gap_unknown: Gaps of which it did not know how much they hold: another epoch.
        venue_gaps: Gaps at the venue: numbered messages like any other.
        lost_connections: Connections that ended before the time, by reason.
        resumed: Reconnections that went on with `since`.
        epochs: Reconnections that found another epoch.
        byes: By code.
        refused: What was refused, with the reason.
        cpu_s: CPU time of these processes.
        elapsed_s: How long they ran.
    """

    connections: int = 0
    connected: int = 0
    failed: Counter[str] = attrs.field(factory=Counter)
    welcome_us: Counter[int] = attrs.field(factory=Counter)
    ack_us: Counter[int] = attrs.field(factory=Counter)
    messages: int = 0
    frames: int = 0
    bytes: int = 0
    past: int = 0
    recv_us: Counter[int] = attrs.field(factory=Counter)
    event_us: Counter[int] = attrs.field(factory=Counter)
    heartbeats: int = 0
    lost: Counter[str] = attrs.field(factory=Counter)
    unsettled: int = 0
    conflated: int = 0
    gap_seqs: int = 0
    gap_unknown: int = 0
    venue_gaps: int = 0
    lost_connections: Counter[str] = attrs.field(factory=Counter)
    resumed: int = 0
    epochs: int = 0
    byes: Counter[str] = attrs.field(factory=Counter)
    refused: Counter[str] = attrs.field(factory=Counter)
    cpu_s: float = 0.0
    elapsed_s: float = 0.0

    def add(self, other: dict[str, Any]) -> None:
        """Add what another process saw, as it came from `attrs.asdict` through JSON."""
        for field in attrs.fields(Figures):
            mine, theirs = getattr(self, field.name), other[field.name]
            if isinstance(mine, Counter):
                number = field.name.endswith("_us")
                mine.update({int(key) if number else key: count for key, count in theirs.items()})
            elif field.name == "elapsed_s":
                self.elapsed_s = max(mine, theirs)
            else:
                setattr(self, field.name, mine + theirs)


def rounded(us: int) -> int:
    """Return the key of a time in a spread."""
    return us if us < 10_000 else us - us % COARSE_US


def percentiles(spread: Counter[int], shares: Iterable[float]) -> list[float]:
    """Return the times in ms below which these shares lie; empty if there are none."""
    total = spread.total()
    found = []
    ordered = sorted(spread.items())
    for share in shares:
        want, seen = share * total, 0
        for us, count in ordered:
            seen += count
            if seen >= want:
                found.append(us / 1000)
                break
    return found


SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


def summary(figures: Figures) -> dict[str, Any]:
    """Return everything as one JSON document; times in ms."""

    def times(spread: Counter[int]) -> dict[str, float]:
        return dict(zip(SHARES, percentiles(spread, SHARES.values()), strict=False))

    elapsed = figures.elapsed_s or 1.0
    return {
        "elapsed_s": round(figures.elapsed_s, 3),
        "cpu_s": round(figures.cpu_s, 3),
        "connections": figures.connections,
        "connected": figures.connected,
        "failures": dict(figures.failed),
        "connect_ms": times(figures.welcome_us),
        "subscribe_ms": times(figures.ack_us),
        "messages": figures.messages,
        "messages_per_s": round(figures.messages / elapsed, 1),
        "frames": figures.frames,
        "bytes": figures.bytes,
        "past_messages": figures.past,
        "latency_ms": {"ts_recv": times(figures.recv_us), "ts_event": times(figures.event_us)},
        "heartbeats": figures.heartbeats,
        "lost": figures.lost.total(),
        "lost_by_topic": dict(figures.lost.most_common()),
        "unsettled": figures.unsettled,
        "announced": {
            "conflated": figures.conflated,
            "gap_seqs": figures.gap_seqs,
            "gaps_of_unknown_size": figures.gap_unknown,
        },
        "venue_gaps": figures.venue_gaps,
        "disconnects": dict(figures.lost_connections),
        "reconnects": {"since": figures.resumed, "new_epoch": figures.epochs},
        "bye": dict(figures.byes),
        "refused": dict(figures.refused),
    }


def table(found: dict[str, Any], processes: int) -> str:
    """Return the summary for a person."""

    def times(of: dict[str, float]) -> str:
        return "   ".join(f"{name} {ms:.2f}" for name, ms in of.items()) or "none"

    def counts(of: dict[str, int]) -> list[str]:
        return [f"{'':20}{count:,} x {reason}" for reason, count in of.items()]

    announced, again = found["announced"], found["reconnects"]
    cpu = found["cpu_s"] / (found["elapsed_s"] or 1) / processes
    lines = [
        f"{'connects':20}{found['connected']:,} of {found['connections']:,}, "
        f"{sum(found['failures'].values()):,} failed attempts",
        *counts(found["failures"]),
        f"{'  to welcome, ms':20}{times(found['connect_ms'])}",
        f"{'  to ack, ms':20}{times(found['subscribe_ms'])}",
        f"{'messages':20}{found['messages']:,} in {found['elapsed_s']:.1f} s: {found['messages_per_s']:,.0f} /s, "
        f"{found['bytes'] / 1e6:,.1f} MB",
        f"{'latency, ms':20}of those that came live: all but {found['past_messages']:,}",
        f"{'  ts_recv to here':20}{times(found['latency_ms']['ts_recv'])}",
        f"{'  ts_event to here':20}{times(found['latency_ms']['ts_event'])}",
        f"{'lost numbers':20}{found['lost']:,} without a word"
        + (f"; {found['unsettled']:,} not settled at the end" if found["unsettled"] else ""),
        *counts(found["lost_by_topic"]),
        f"{'  announced':20}{announced['conflated']:,} conflated, {announced['gap_seqs']:,} in gaps, "
        f"{announced['gaps_of_unknown_size']:,} gaps of unknown size",
        f"{'  of the venue':20}{found['venue_gaps']:,} gaps",
        f"{'disconnects':20}{sum(found['disconnects'].values()):,}; back with since {again['since']:,}, "
        f"in a new epoch {again['new_epoch']:,}",
        *counts(found["disconnects"]),
        f"{'bye':20}{sum(found['bye'].values()):,}",
        *counts(found["bye"]),
        f"{'refused':20}{sum(found['refused'].values()):,}",
        *counts(found["refused"]),
        f"{'own CPU':20}{cpu:.0%} of a core in each of {processes} process{'es' if processes > 1 else ''}"
        + ("; too much: the latencies are this program's, use more --processes" if cpu > 0.85 else ""),
    ]
    return "\n".join(lines)
