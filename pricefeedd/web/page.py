"""The status page: plain HTML made here, nothing fetched from elsewhere and no script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape

import attrs

from pricefeedd import __version__
from pricefeedd.web.health import Readiness

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1c1e21;background:#fff}
table{border-collapse:collapse;width:100%;margin:0 0 2rem}
th,td{text-align:left;padding:.3rem .7rem;border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums}
.ok{color:#176b37}.bad{color:#a5161c}a{color:#0a58a6}
@media(prefers-color-scheme:dark){body{color:#e4e6eb;background:#18191a}th,td{border-color:#3a3b3c}
.ok{color:#6fcf97}.bad{color:#ff8b8f}a{color:#7db8f5}}
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

#: Nothing but our own style may be used by the page.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

#: Topics that the page shows.
MOST_ROWS = 500


@attrs.frozen(kw_only=True)
class FeedRow:
    """One topic on the page."""

    topic: str
    state: str
    value: str
    age_s: float | None
    readers: int


def _row(cells: Sequence[object], mark: str = "") -> str:
    kind = f' class="{mark}"' if mark else ""
    return f"<tr{kind}>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>"


def render(readiness: Readiness, feeds: Sequence[FeedRow], *, total: int, readers: int) -> str:
    """Return the page.

    Args:
        feeds: Topics to show; the page says how many more of `total` there are.
        readers: WebSocket clients now.
    """
    venues = "".join(
        _row(
            (
                venue,
                market,
                "healthy" if facts["healthy"] else "unhealthy",
                facts["active_connections"],
                facts["total_messages"],
                facts["last_message_time"] or "never",
                facts["circuit_state"],
            ),
            "ok" if facts["healthy"] else "bad",
        )
        for venue, markets in readiness.venues.items()
        for market, facts in markets.items()
    )
    topics = "".join(
        _row((f.topic, f.state, f.value, "" if f.age_s is None else f"{f.age_s:.1f} s", f.readers))
        for f in feeds[:MOST_ROWS]
    )
    more = f"<p>and {total - len(feeds[:MOST_ROWS])} more: see /feeds</p>" if total > MOST_ROWS else ""
    state = (
        '<p class="ok">ready</p>'
        if readiness.ready
        else f'<p class="bad">not ready: {escape("; ".join(readiness.reasons))}</p>'
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>pricefeedd</title>'
        '<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="5">'
        f"<style>{_STYLE}</style></head><body><h1>pricefeedd {escape(__version__)}</h1>{state}"
        f'<p>{readers} readers, {total} topics. Data: WebSocket on /ws, and <a href="/docs">more</a>.</p>'
        "<h2>Venues</h2><table><tr><th>venue"
        "<th>market<th>state<th>connections<th>messages<th>last message<th>breaker</tr>"
        f"{venues}</table><h2>Topics</h2><table><tr><th>topic<th>state<th>last value<th>age<th>readers</tr>"
        f"{topics}</table>{more}</body></html>"
    )
