"""The most likely cause of how a topic stands, from the facts alone. Pure: it asks nobody, and knows no time.

The judges are asked in order and the first that finds its cause has the word, so what lies nearer to the cause stands
before what merely follows from it: a breaker that is open before the connection that is not, and both before silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

Facts = Mapping[str, Any]

#: What is told of "lately" is no longer ago than this, seconds.
LATELY_S = 60.0
#: A connection without a frame for so long says nothing at all, seconds.
SILENT_S = 10.0
#: A live stream that has said nothing for so long is quiet, unless its pace is slower, seconds.
QUIET_S = 10.0
#: A venue's loop that did not turn for so long is in trouble, seconds.
STUCK_S = 5.0


@attrs.frozen
class Verdict:
    """Why a topic is as it is.

    Attributes:
        cause: For programs: one of `CAUSES`.
        healthy: Readers get what the venue says, as new as it says it.
        text: For people: what is the matter.
        advice: What to do; "" where there is nothing.
    """

    cause: str
    healthy: bool
    text: str
    advice: str


#: All causes, with what each means.
CAUSES: Mapping[str, str] = {
    "live": "All is well on this side: if a reader sees something else, it is the reader.",
    "quiet": "Live; the venue has nothing to say.",
    "reader_lags": "Live; some readers do not take what they are given.",
    "gap": "Live again; lately events were missed.",
    "garbage": "Frames came that cannot be decoded.",
    "held_back": "Trades wait until REST has told the ones before them.",
    "catching_up": "The account is live; what it missed is not known yet.",
    "standby": "Another daemon leads.",
    "upstream_lost": "The relay does not hear the daemon whose topics it serves.",
    "not_relayed": "The upstream has told nothing of this topic.",
    "upstream_says": "The upstream itself says that the topic is not live.",
    "crashed": "The venue's plugin crashed and is begun again.",
    "instruments_not_loaded": "It is not known yet what the venue lists.",
    "unknown_instrument": "The venue lists no such instrument.",
    "no_channel": "The venue has no such channel of this instrument.",
    "not_tradable": "The venue says that the instrument cannot be traded now.",
    "on_demand_idle": "Brought on demand, and nobody reads it.",
    "not_configured": "Nothing asks for it.",
    "starting": "It is being begun.",
    "clock_jump": "Our clock jumped.",
    "overloaded": "We are short of CPU.",
    "no_room": "The venue allows no connection more.",
    "refused": "The venue refused the subscription.",
    "login_refused": "The venue refused the credentials.",
    "breaker_open": "The endpoint failed too often in a row and is left alone for a while.",
    "budget_empty": "A rate budget is used up, or the venue told us to stop.",
    "never_connected": "The connection was never opened.",
    "connection_lost": "The connection ended.",
    "connecting": "The connection is being opened.",
    "queued": "The venue's pace holds the subscription up.",
    "unanswered": "The venue has not answered the subscription.",
    "put_off": "The venue would not, or did not, take the subscription; it is asked again.",
    "book_snapshot": "The book waits for a snapshot.",
    "silent_connection": "The connection is open, and nothing comes over it.",
    "silent_stream": "The connection works, and this stream stopped.",
    "unexplained": "None of these: the state and its reason are all that is known.",
}

Judge = Callable[[Facts], Verdict | None]


def judge(facts: Facts) -> Verdict:
    """Return the verdict on the facts that `assembly.explain` gathers."""
    if facts["leader"] is not None and not facts["leader"]["leads"]:
        return _standby(facts)
    if facts["upstream"] is not None:
        judges = _RELAYED
    elif not facts["at_work"]:
        return _crashed(facts)
    elif facts["served"] is None and facts["account"] is None:
        judges = _UNSERVED
    elif _state(facts) == "live":
        judges = _LIVE
    else:
        judges = _BROUGHT
    for ask in judges:
        found = ask(facts)
        if found is not None:
            return found
    raise AssertionError("the last of the judges always answers")


def span(seconds: float) -> str:
    """Return a length of time for people."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.0f} h"


# --- what is nowhere -------------------------------------------------------------------------------------


def _standby(facts: Facts) -> Verdict:
    leader = facts["leader"]
    who = leader["leader"] or "nobody, as far as is known,"
    why = f" ({leader['reason']})" if leader["reason"] else ""
    text = f"This daemon stands by and serves nothing: {who} leads{why}."
    return Verdict("standby", False, text, "Ask the daemon that leads.")


def _crashed(facts: Facts) -> Verdict:
    reason = _reason(facts)
    text = f"The venue {facts['venue']} is not at work" + (f": {reason}." if reason else ".")
    return Verdict(
        "crashed",
        False,
        text,
        "It is begun again by itself, after a pause; the log has the traceback under 'plugin crashed'.",
    )


def _unlisted(facts: Facts) -> Verdict | None:
    for market in facts["markets"]:
        if market["instruments"] is None and facts["listed"] is None:
            why = market["not_loaded"]
            text = f"What {facts['venue']} {market['market']} lists is not known yet"
            text += f": {why}." if why else "; it is being asked."
            blocked = _waits(facts, facts["breakers"], facts["budgets"])
            return Verdict("instruments_not_loaded", False, text + blocked, _PATIENCE)
    if facts["listed"] is None and facts["markets"]:
        text = f"{facts['venue']} lists no {facts['instrument']}."
        advice = "Look it up: pricefeedd instruments, or /api/v1/instruments; what is listed is read again every hour."
        return Verdict("unknown_instrument", False, text, advice)
    return None


def _no_channel(facts: Facts) -> Verdict | None:
    served = facts["served"]
    if (served is None and facts["has"]) or (served is not None and served["chain"]):
        return None
    text = f"{facts['venue']} has no {facts['channel']} of {facts['instrument']}."
    return Verdict("no_channel", False, text, "Subscribe to another channel; the venue's page says which.")


def _asleep(facts: Facts) -> Verdict | None:
    demand, wanted = facts["demand"], facts["wanted"]
    if demand["holds"]:
        text = "Somebody has asked for it just now, and it is being begun."
        return Verdict("starting", False, text, _PATIENCE)
    if wanted["configured"] is not None:
        return Verdict(
            "starting", False, f"{wanted['configured']} asks for it; it is being begun.", _PATIENCE
        )
    if demand["offered"]:
        text = f"Nobody reads it: {wanted['on_demand'] or 'its venue'} brings it on demand."
        advice = f"It begins when a client subscribes to {facts['topic']} by its full name."
        return Verdict("on_demand_idle", False, text, advice)
    return None


def _not_configured(facts: Facts) -> Verdict:
    venue, instrument = facts["venue"], facts["listed"]
    market = "" if instrument is None else f" (market {instrument['market']})"
    text = f"The venue lists it{market}, and nothing asks for it: no [[venues.{venue}.subscribe]] names it."
    advice = (
        f"Add it to a [[venues.{venue}.subscribe]], there or with on_demand = true, or have a service subscribe it by "
        "/api/v1/subscriptions."
    )
    return Verdict("not_configured", False, text, advice)


def _not_tradable(facts: Facts) -> Verdict | None:
    instrument = facts["listed"]
    if instrument is None or instrument["tradable"]:
        return None
    says = instrument["status"] or "no more"
    text = f"{instrument['name']} cannot be traded now: the venue says {says}."
    return Verdict("not_tradable", _state(facts) == "live", text, "Nothing, until the venue trades it again.")


# --- what another daemon tells ---------------------------------------------------------------------------


def _upstream_lost(facts: Facts) -> Verdict | None:
    upstream = facts["upstream"]
    if upstream["state"] == "up":
        return None
    why = f": {upstream['reason']}" if upstream["reason"] else ""
    text = f"This relay does not hear its upstream ({upstream['state'].replace('_', ' ')}){why}. What it has may be old."
    return Verdict(
        "upstream_lost", False, text, "Look at the upstream, and at what carries its messages here."
    )


def _not_relayed(facts: Facts) -> Verdict | None:
    if facts["state"] is not None:
        return None
    text = "The upstream has told nothing of this topic since this relay knows it."
    advice = f"Ask there, and look at topics of [sources.{facts['upstream']['source']}] here."
    return Verdict("not_relayed", False, text, advice)


def _upstream_says(facts: Facts) -> Verdict | None:
    if _state(facts) == "live":
        return None
    text = f"The upstream itself says {_state(facts)}: {_reason(facts) or 'without a reason'}."
    return Verdict("upstream_says", False, text, "Ask there: pricefeedd explain, with its --url.")


# --- what does not come ----------------------------------------------------------------------------------

_PATIENCE = "Wait a moment; it is tried again by itself."


def _clock_jump(facts: Facts) -> Verdict | None:
    at_s = facts["clock"]["jumped_s"]
    if at_s is None or at_s > LATELY_S:
        return None
    text = f"Our clock jumped by {facts['clock']['by_s']:+.1f} s {span(at_s)} ago, and what depends on it settles."
    return Verdict(
        "clock_jump", False, text, "Look at the host's time service (chronyc tracking, timedatectl)."
    )


def _overloaded(facts: Facts) -> Verdict | None:
    if facts["loop_s"] is None or facts["loop_s"] < STUCK_S:
        return None
    text = f"The venue's loop has not turned for {span(facts['loop_s'])}: the process is short of CPU, or a plugin hangs."
    return Verdict(
        "overloaded", False, text, "Look at the CPU of the process; give it a core, or fewer topics."
    )


def _no_room(facts: Facts) -> Verdict | None:
    if facts["served"] is None or not facts["served"]["no_room"]:
        return None
    text = f"It fits on no connection: {_reason(facts) or 'the venue allows no more'}."
    return Verdict("no_room", False, text, "Serve fewer topics of this venue from this address.")


def _refused(facts: Facts) -> Verdict | None:
    streams = facts["streams"]
    refused = [stream for stream in streams if stream["state"] == "refused"]
    if not refused or len(refused) < len(streams):
        return None
    first = refused[0]
    again = f" It is asked again in {span(first['again_s'])}." if first["again_s"] is not None else ""
    text = f"The venue refused {first['stream']}: {first['reason'] or _reason(facts)}.{again}"
    return Verdict(
        "refused", False, text, "Check that the venue still has it, and that this address may read it there."
    )


def _login_refused(facts: Facts) -> Verdict | None:
    if all(connection["kept"] for connection in facts["connections"]):
        return None
    error = next(c["last_error"] for c in facts["connections"] if not c["kept"])
    text = f"The venue refused our credentials: {error}."
    advice = f"Put right the keys in [venues.{facts['venue']}], or what the venue lets them do; then restart, or wait an hour."
    return Verdict("login_refused", False, text, advice)


def _not_open(facts: Facts) -> Verdict | None:
    """Judge a connection that is not there."""
    closed = [connection for connection in facts["connections"] if not connection["open"]]
    if not closed or len(closed) < len(facts["connections"]):
        return None
    connection = closed[0]
    name = f"{connection['feed']} #{connection['index']}"
    breaker = _breaker(facts, connection["endpoint"])
    if breaker is not None:
        return breaker
    if connection["next_try_s"]:
        return _waiting(facts, connection, name)
    budgets = [b for b in facts["budgets"] if b["budget"] == connection["connect_budget"] and b["wait_s"]]
    if budgets:
        return _budget(budgets, "to open a connection")
    again = f" Before that: {connection['last_error']}." if connection["last_error"] else ""
    return Verdict("connecting", False, f"The connection {name} is being opened.{again}", _PATIENCE)


def _waiting(facts: Facts, connection: Facts, name: str) -> Verdict:
    error, soon = connection["last_error"], span(connection["next_try_s"])
    if connection["silent"]:
        text = (
            f"The venue accepted the subscriptions on {name} and sent nothing: {error}. Next try in {soon}."
        )
        halted = _not_tradable(facts)
        advice = "Ask whether the venue has an outage, or nothing is traded."
        return halted or Verdict("silent_connection", False, text, advice)
    if connection["opened_before"]:
        text = f"The connection {name} ended: {error}. Next try in {soon}."
        return Verdict(
            "connection_lost",
            False,
            text,
            "It comes back by itself; if it does not, ask the venue's status page.",
        )
    text = f"The connection {name} was never opened: {error}. Next try in {soon}."
    return Verdict(
        "never_connected",
        False,
        text,
        f"Check the way there from this host: DNS, firewall, proxy, endpoints of [venues.{facts['venue']}].",
    )


def _breaker(facts: Facts, endpoint: str) -> Verdict | None:
    for breaker in facts["breakers"]:
        if breaker["endpoint"] == endpoint and breaker["state"] == "open":
            error = next(
                (c["last_error"] for c in facts["connections"] if c["last_error"]), facts["last_error"]
            )
            text = (
                f"The circuit breaker of {endpoint} is open after {breaker['failures']} failures in a row: {error}. "
                f"Tried again in {span(breaker['wait_s'])}."
            )
            return Verdict(
                "breaker_open", False, text, "Put right what the error says, or wait for the venue."
            )
    return None


def _budget(budgets: Iterable[Facts], what_for: str) -> Verdict:
    worst = max(budgets, key=lambda budget: float(budget["wait_s"]))
    if worst["stopped"]:
        text = f"The venue told us to stop: the budget {worst['budget']} is closed for {span(worst['wait_s'])}, {what_for}."
        advice = "Do not restart: the ban may grow. Serve fewer topics, or from another address."
    else:
        text = (
            f"The rate budget {worst['budget']} is used up ({worst['left']:g} of {worst['capacity']:g} left), {what_for}: "
            f"more in {span(worst['wait_s'])}."
        )
        advice = "Wait; if that is often so, serve fewer topics from this address."
    return Verdict("budget_empty", False, text, advice)


def _not_subscribed(facts: Facts) -> Verdict | None:
    """Judge streams that the venue does not send, though the connection is open."""
    if any(stream["state"] == "accepted" for stream in facts["streams"]):
        return None
    by_state = {stream["state"]: stream for stream in facts["streams"]}
    if (stream := by_state.get("later")) is not None:
        text = f"{_reason(facts) or 'The venue did not take the subscription'}; {stream['stream']} is asked for again in "
        return Verdict("put_off", False, f"{text}{span(stream['again_s'])}.", _PATIENCE)
    if (stream := by_state.get("asked")) is not None:
        text = f"The venue has not answered the subscription of {stream['stream']} yet."
        return Verdict("unanswered", False, text, _PATIENCE)
    if (stream := by_state.get("queued")) is not None:
        wait_s = max((c["asks_in_s"] for c in facts["connections"]), default=0.0)
        if wait_s:
            mine = [b for b in facts["budgets"] if b["wait_s"]]
            mine = mine or [
                {"budget": "requests", "left": 0, "capacity": 0, "wait_s": wait_s, "stopped": False}
            ]
            return _budget(mine, f"to subscribe {stream['stream']}")
        text = f"The subscription of {stream['stream']} waits for others before it: the venue sets the pace."
        return Verdict("queued", False, text, _PATIENCE)
    return None


def _book(facts: Facts) -> Verdict | None:
    line = next((line for line in facts["lines"] if line["waits_for"].startswith("snapshot")), None)
    if line is None or _state(facts) == "stale":
        return None
    why = f" ({line['reason']})" if line["reason"] else ""
    if line["waits_for"] == "snapshot_stream":
        text = f"The book is being made again{why}: it waits for the snapshot that the stream sends."
        return Verdict("book_snapshot", False, text, "The stream is asked for again by itself if none comes.")
    text = f"The book is being made again{why}: it waits for a snapshot by REST."
    open_ = [b for b in facts["breakers"] if b["state"] == "open"]
    if open_:
        return _breaker(facts, open_[0]["endpoint"])
    empty = [b for b in facts["budgets"] if b["wait_s"]]
    if empty:
        return _budget(empty, "and the book waits for a snapshot by REST")
    if facts["last_error_s"] is not None and facts["last_error_s"] < LATELY_S:
        text += f" The last error, {span(facts['last_error_s'])} ago: {facts['last_error']}."
    if line["late_snapshots"]:
        text += f" {line['late_snapshots']} came too late."
    return Verdict(
        "book_snapshot",
        False,
        text,
        "If that lasts, REST is slow or fails: see the error, breakers and budgets.",
    )


def _garbage(facts: Facts) -> Verdict | None:
    bad = [frame for frame in facts["bad_frames"] if frame["age_s"] < LATELY_S]
    if not bad:
        return None
    text = f"Frames come that cannot be decoded, the last {span(bad[0]['age_s'])} ago: {bad[0]['reason']}."
    advice = "The venue changed its protocol, or something in between answers for it; look at the frame, and for a newer plugin."
    return Verdict("garbage", False, text, advice)


def _silence(facts: Facts) -> Verdict | None:
    if _state(facts) != "stale" or not facts["connections"]:
        return None
    connection = next((c for c in facts["connections"] if c["open"]), facts["connections"][0])
    frame_s, topics = connection["last_frame_s"], connection["topics"]
    name = f"{connection['feed']} #{connection['index']}"
    if frame_s is not None and frame_s > SILENT_S:
        text = f"The connection {name} is open, and no frame of any kind has come for {span(frame_s)}."
        return Verdict(
            "silent_connection", False, text, "It is made again by itself; check the way to the venue."
        )
    live, all_ = topics.get("live", 0), sum(topics.values())
    if all_ > 1 and not live:
        text = (
            f"The connection {name} answers, and none of its {all_} topics brings anything: {_reason(facts)}."
        )
        return Verdict(
            "silent_connection", False, text, "It is made again by itself; ask the venue's status page."
        )
    since = "" if frame_s is None else f" (a frame {span(frame_s)} ago, {live} of its {all_} topics live)"
    text = f"The connection {name} works{since}, and this stream stopped: {_reason(facts)}."
    return Verdict(
        "silent_stream",
        False,
        text,
        "It is asked for again by itself; ask whether the venue still trades it.",
    )


def _unexplained(facts: Facts) -> Verdict:
    text = f"It is {_state(facts) or 'not there'}: {_reason(facts) or 'no reason was told'}."
    return Verdict("unexplained", False, text, "Look at the chain below, and at the log.")


# --- what is live ----------------------------------------------------------------------------------------


def _held_back(facts: Facts) -> Verdict | None:
    line = next((line for line in facts["lines"] if line["waits_for"] == "trades_rest"), None)
    if line is None:
        return None
    text = f"Trades were missed: {line['waits']} that came since wait until REST has told them, 30 s at most."
    return Verdict("held_back", False, text, _PATIENCE)


def _catching_up(facts: Facts) -> Verdict | None:
    account = facts["account"]
    if account is None or account["whole"]:
        return None
    text = f"It is live; what was missed before is not known yet: {_reason(facts) or 'REST is being asked'}."
    return Verdict("catching_up", False, text, _PATIENCE)


def _lagging(facts: Facts) -> Verdict | None:
    readers = facts["readers"]
    if not readers["lagging"]:
        return None
    text = f"The topic is live. {readers['lagging']} of its readers do not take what they are given: what they see is old."
    return Verdict(
        "reader_lags",
        True,
        text,
        "Look at that reader: its CPU, its network, what it does between two reads.",
    )


def _gap(facts: Facts) -> Verdict | None:
    gaps = [gap for gap in facts["gaps"] if gap["age_s"] < LATELY_S and gap["missing"] != 0]
    if not gaps:
        return None
    count = gaps[0]["missing"]
    lost = f"{count} events" if count is not None else "nobody knows how many events"
    text = (
        f"The topic is live. {span(gaps[0]['age_s'])} ago {lost} were missed for good: {gaps[0]['reason']}."
    )
    return Verdict("gap", True, text, "")


def _live(facts: Facts) -> Verdict:
    last_s = facts["state"]["last_event_s"]
    line = facts["lines"][0] if facts["lines"] else None
    pace_s = None if line is None else line["speaks_every_s"]
    if last_s is not None and last_s <= max(QUIET_S, 20 * (pace_s or 0.0)):
        text = f"The topic is live: the last event came {span(last_s)} ago, and {_reads(facts)}."
        advice = "If a reader sees an old price, it is the reader: is it subscribed, with which every_ms, and is its clock right?"
        return Verdict("live", True, text, advice)
    came = "nothing has come yet" if last_s is None else f"the last event came {span(last_s)} ago"
    text = f"The topic is live, and the venue has nothing to say: {came}."
    stale_s = None if line is None else line["stale_after_s"]
    if stale_s is None:
        text += " Nothing says how often it should speak, so that silence is no fault."
    else:
        text += f" After {span(stale_s)} of silence it is stale."
    return Verdict("quiet", True, text, "")


def _reads(facts: Facts) -> str:
    readers = facts["readers"]
    clients, sinks = readers["clients"], readers["sinks"]
    told = [f"{clients} client{'s' if clients > 1 else ''}"] if clients else []
    told += [f"the sink {name}" for name in sinks]
    verb = "reads" if clients + len(sinks) <= 1 else "read"
    return f"{' and '.join(told)} {verb} it" if told else "nobody reads it"


# --- what all look at ------------------------------------------------------------------------------------


def _state(facts: Facts) -> str:
    return "" if facts["state"] is None else str(facts["state"]["state"])


def _reason(facts: Facts) -> str:
    """Return the reason of the topic's state, without the point at its end."""
    return "" if facts["state"] is None else str(facts["state"]["reason"]).rstrip(".")


def _waits(facts: Facts, breakers: Iterable[Facts], budgets: Iterable[Facts]) -> str:
    """Return what holds requests up, as a sentence; "" if nothing does."""
    for breaker in breakers:
        if breaker["state"] == "open":
            return f" The circuit breaker of {breaker['endpoint']} is open; tried again in {span(breaker['wait_s'])}."
    for budget in budgets:
        if budget["wait_s"]:
            return f" The rate budget {budget['budget']} is used up; more in {span(budget['wait_s'])}."
    return ""


_UNSERVED: tuple[Judge, ...] = (_unlisted, _no_channel, _not_tradable, _asleep, _not_configured)
_LIVE: tuple[Judge, ...] = (_held_back, _catching_up, _garbage, _lagging, _not_tradable, _gap, _live)
_RELAYED: tuple[Judge, ...] = (_upstream_lost, _not_relayed, _upstream_says, _lagging, _gap, _live)
_BROUGHT: tuple[Judge, ...] = (
    *(_no_channel, _clock_jump, _no_room, _overloaded, _login_refused, _refused, _not_open, _not_subscribed),
    *(_book, _garbage, _not_tradable, _silence, _unexplained),
)
