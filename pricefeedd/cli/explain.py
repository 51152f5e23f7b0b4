"""Why a topic of a running daemon is as it is, on one screen."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import orjson

from pricefeedd.cli.daemon import address_of, config_option
from pricefeedd.config import build, find_file
from pricefeedd.errors import ConfigError, ServiceAwayError

#: Where a daemon is asked of which no configuration is at hand.
DEFAULT_URL = "http://127.0.0.1:8765"
#: The topic is not healthy.
EXIT_UNHEALTHY = 1
#: Characters of a frame: two lines.
FRAME = 160

_COLOURS = {"live": "green", "stale": "yellow", "resyncing": "yellow", "connecting": "cyan", "down": "red"}
#: What of the configuration says where a daemon listens.
_PLACES = ("listen", "admin_listen")

Facts = Mapping[str, Any]
#: A heading, and the lines beside it.
Section = tuple[str, list[str]]


class NotExplained(click.ClickException):
    """The daemon refuses what is asked: a matter of how the command was used."""

    exit_code = 2


@click.command()
@click.argument("topic")
@config_option
@click.option(
    "--url", help=f"The running daemon; by default where the configuration says, else {DEFAULT_URL}."
)
@click.option("--api-key", envvar="PRICEFEEDD_API_KEY", help="For daemons that ask for one.")
@click.option("--json", "as_json", is_flag=True, help="Print what /api/v1/explain answers.")
def explain(topic: str, path: Path | None, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Tell why TOPIC is stale, absent or wrong, such as trade:binance:BTC-USDT, and what to do.

    Exit codes: 0 readers get what the venue says, 1 they do not, 2 there is no such topic, 69 no daemon answers.
    """
    from pricefeedd.cli.running import RefusedError, ask  # late: it loads an HTTP client

    url = url or _address(path)
    try:
        facts = ask("GET", url, "/api/v1/explain", api_key=api_key, topic=topic)
    except RefusedError as e:
        raise NotExplained("\n".join(_refusal(e.body))) from e
    if not isinstance(facts, dict) or "verdict" not in facts:
        raise ServiceAwayError(f"what answers at {url} is no pricefeedd, or too old to explain anything")
    if as_json:
        click.echo(orjson.dumps(facts).decode())
    else:
        _print(facts)
    sys.exit(0 if facts["verdict"]["healthy"] else EXIT_UNHEALTHY)


def _address(path: Path | None) -> str:
    """Return where the daemon of the configuration listens.

    The rest of the file is not looked at: whoever asks may neither read its secrets nor have its plugins.

    Raises:
        ConfigError: It cannot be read.
    """
    found = find_file(path)
    if found is None:
        return DEFAULT_URL
    try:
        web = tomllib.loads(found.read_text()).get("web", {})
    except (OSError, ValueError) as e:
        raise ConfigError([str(e)], source=str(found)) from e
    environ = {f"PRICEFEEDD__WEB__{name.upper()}" for name in _PLACES}
    config = build(
        {"web": {name: web[name] for name in _PLACES if name in web}},
        venues={},
        sinks={},
        electors={},
        environ={name: value for name, value in os.environ.items() if name in environ},
        source=str(found),
    )
    address = address_of(config)
    return address.replace("http:", "https:", 1) if "tls" in web else address


def _refusal(body: Facts) -> Iterator[str]:
    """Yield why nothing can be told, and what might have been meant."""
    message = str(body.get("error", "it refuses"))
    near = [word for word in body.get("did_you_mean", ()) if word not in message]
    yield message + (f"; did you mean {' or '.join(near)}?" if near else "")
    for row in body.get("results", ()):
        yield f"  {row['topic']} {row['state']}" + (f": {row['reason']}" if row["reason"] else "")


# --- on one screen -----------------------------------------------------------------------------------------


def sections(facts: Facts) -> list[Section]:
    """Return what is told, from the topic to the venue; what says nothing is left out."""
    found = [
        ("topic", list(_topic(facts))),
        ("readers", list(_readers(facts))),
        ("leader", _one(facts["leader"], _leader)),
        ("upstream", _one(facts["upstream"], _upstream)),
        ("account", _one(facts["account"], _account)),
        ("wanted", list(_wanted(facts))),
        ("instrument", list(_instrument(facts))),
        ("made of", [_line(line) for line in facts["lines"]]),
        ("streams", [_stream(stream) for stream in facts["streams"]]),
        ("connections", [text for each in facts["connections"] for text in _connection(each)]),
        (
            "bad frames",
            [f"{_ago(bad['age_s'])}, {bad['feed']}: {bad['reason']}"[:FRAME] for bad in facts["bad_frames"]],
        ),
        (
            "last error",
            [f"{_ago(facts['last_error_s'])}: {facts['last_error']}"] if facts["last_error"] else [],
        ),
        ("breakers", _breakers(facts["breakers"])),
        ("budgets", _joined(_budget(budget) for budget in facts["budgets"])),
        ("gaps", [_gap(gap) for gap in facts["gaps"]]),
        ("latency", _one(facts["latency"], _latency)),
        ("clock", _clock(facts["clock"])),
    ]
    return [(name, lines) for name, lines in found if lines]


def _one(facts: Facts | None, tell: Any) -> list[str]:
    return [] if facts is None else [tell(facts)]


def _joined(texts: Iterable[str]) -> list[str]:
    told = ", ".join(texts)
    return [told] if told else []


def _s(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds < 10
        else f"{seconds:.0f} s"
        if seconds < 600
        else f"{seconds / 60:.0f} min"
    )


def _ago(seconds: float | None) -> str:
    return "never" if seconds is None else f"{_s(seconds)} ago"


def _topic(facts: Facts) -> Iterator[str]:
    state = facts["state"]
    if state is None:
        yield "nobody has served it yet"
        return
    since = "" if state["state_s"] is None else f" for {_s(state['state_s'])}"
    reason = f" ({state['reason']})" if state["reason"] else ""
    yield f"{state['state']}{since}{reason}"
    yield (
        f"seq {state['seq']}, {state['events']} events; last event {_ago(state['last_event_s'])}, "
        f"last message {_ago(state['last_message_s'])}; epoch {facts['epoch']}"
    )
    if state["last"] is not None:
        told = " ".join(
            f"{name}={_value(value)}" for name, value in state["last"].items() if value is not None
        )
        yield f"last: {told}"[:FRAME]


def _value(value: object) -> str:
    """Return a value for people; a level of a book as its price and size."""
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)


def _readers(facts: Facts) -> Iterator[str]:
    readers = facts["readers"]
    told = ["1 client" if readers["clients"] == 1 else f"{readers['clients']} clients"]
    if readers["lagging"]:
        told.append(f"{readers['lagging']} of them lag")
    if readers["sinks"]:
        told.append(f"sinks {', '.join(readers['sinks'])}")
    if readers["services"]:
        told.append(f"subscribed by {', '.join(readers['services'])}")
    for options in readers["options"]:
        ways = [f"every {options['every_ms']} ms"] if options["every_ms"] else []
        ways += [f"{options['depth']} levels"] if options["depth"] else []
        told.append(f"{options['readers']} of them {' and '.join(ways)}")
    yield ", ".join(told)


def _leader(leader: Facts) -> str:
    who = "this daemon leads" if leader["leads"] else f"{leader['leader'] or 'nobody known'} leads"
    return who + (f" ({leader['reason']})" if leader["reason"] else "")


def _upstream(upstream: Facts) -> str:
    why = f" ({upstream['reason']})" if upstream["reason"] else ""
    lag = "" if upstream["lag_s"] is None else f", {upstream['lag_s']:.3f} s behind"
    return f"[sources.{upstream['source']}] {upstream['state']}{why}, last message {_ago(upstream['last_message_s'])}{lag}"


def _account(account: Facts) -> str:
    login = "login refused" if account["login_refused"] else "login not refused"
    whole = "nothing is missing" if account["whole"] else "what was missed is not known yet"
    return f"{account['environment']}, {login}, {whole}; the venue's clock is {account['clock_ahead_s']:+.3f} s from ours"


def _wanted(facts: Facts) -> Iterator[str]:
    wanted, demand = facts["wanted"], facts["demand"]
    if wanted["configured"]:
        yield f"always, by {wanted['configured']}"
    if wanted["on_demand"]:
        yield f"on demand, by {wanted['on_demand']}"
    if demand["holds"]:
        yield f"held by {demand['holds']} readers or services"
    if demand["leaving_s"] is not None:
        yield f"nobody holds it any more; let go in {_s(demand['leaving_s'])}"


def _instrument(facts: Facts) -> Iterator[str]:
    listed = facts["listed"]
    if listed is not None:
        alias = f", served by the stream of {listed['alias_of']}" if listed["alias_of"] else ""
        tradable = "tradable" if listed["tradable"] else "NOT tradable"
        status = f" ({listed['status']})" if listed["status"] else ""
        yield f"{listed['symbol']} of {listed['market']}, {tradable}{status}{alias}"
    for market in facts["markets"]:
        if market["instruments"] is None:
            why = f": {market['not_loaded']}" if market["not_loaded"] else ""
            yield f"{market['market']}: not known yet what it lists{why}"
        else:
            yield f"{market['market']}: {market['instruments']} instruments, read {_ago(market['loaded_s'])}"


def _line(line: Facts) -> str:
    told = [f"{line['channel']} {line['state']}" + (f" ({line['reason']})" if line["reason"] else "")]
    told.append(f"{line['events']} events, {line['duplicates']} again, {line['gaps']} gaps")
    if "resyncs" in line:
        told.append(f"{line['resyncs']} resyncs{', with checksum' if line['checksum'] else ''}")
    if line["speaks_every_s"] is not None:
        told.append(f"speaks every {_s(line['speaks_every_s'])}")
    told.append(
        "silence is no fault" if line["stale_after_s"] is None else f"stale after {_s(line['stale_after_s'])}"
    )
    if line["sequence"] is not None:
        told.append(f"at {line['sequence']}")
    if line["waits_for"]:
        told.append(f"{line['waits']} wait for {line['waits_for'].replace('_', ' by ')}")
    if line["requests"]:
        told.append(f"{line['requests']} requests under way")
    return "; ".join(told)


def _stream(stream: Facts) -> str:
    why = f" ({stream['reason']})" if stream["reason"] else ""
    again = "" if stream["again_s"] is None else f", asked again in {_s(stream['again_s'])}"
    suspect = ", suspected" if stream["suspect"] else ""
    return (
        f"{stream['stream']} on {stream['feed']} #{stream['index']}: {stream['state']}{why}{again}{suspect}"
    )


def _connection(facts: Facts) -> Iterator[str]:
    name = f"{facts['feed']} #{facts['index']} {facts['path']}".rstrip()
    if facts["open"]:
        told = [f"open for {_s(facts['open_s'] or 0.0)}", f"last frame {_ago(facts['last_frame_s'])}"]
        told += [] if facts["last_ping_s"] is None else [f"ping {_ago(facts['last_ping_s'])}"]
        told += ["to be replaced"] if facts["retiring"] else []
    elif not facts["kept"]:
        told = ["given up: credentials refused"]
    elif facts["next_try_s"]:
        told = [f"closed; next try in {_s(facts['next_try_s'])}"]
    else:
        told = ["being opened" if facts["dials"] else "waits to be opened"]
    topics = ", ".join(f"{count} {state}" for state, count in facts["topics"].items())
    told += [f"session {facts['sessions']}", f"{facts['streams']} streams"]
    told += [f"{facts['unanswered']} not answered"] if facts["unanswered"] else []
    told += [f"{facts['refused']} refused"] if facts["refused"] else []
    yield f"{name}: {', '.join(told)}" + (f"; its topics: {topics}" if topics else "")
    if facts["last_error"]:
        yield f"  last error {_ago(facts['last_error_s'])}: {facts['last_error']}"
    frame = facts["last_frame"]
    if frame is not None:
        yield f"  last frame {_ago(frame['age_s'])}, {frame['bytes']} bytes: {frame['text']}"[:FRAME]


def _breakers(breakers: Sequence[Facts]) -> list[str]:
    """Return those that have counted a failure; that all is well is said in a word."""
    troubled = [breaker for breaker in breakers if breaker["failures"] or breaker["state"] != "closed"]
    if breakers and not troubled:
        return ["closed, without a failure"]
    return _joined(_breaker(breaker) for breaker in troubled)


def _breaker(breaker: Facts) -> str:
    failures = f" after {breaker['failures']} failures" if breaker["failures"] else ""
    wait = f", tried again in {_s(breaker['wait_s'])}" if breaker["wait_s"] else ""
    return f"{breaker['endpoint']} {breaker['state']}{failures}{wait}"


def _budget(budget: Facts) -> str:
    wait = f" (closed by the venue for {_s(budget['wait_s'])})" if budget["stopped"] else ""
    wait = wait or (f" (more in {_s(budget['wait_s'])})" if budget["wait_s"] else "")
    return f"{budget['budget']} {budget['left']:g}/{budget['capacity']:g} in {budget['per_s']:g} s{wait}"


def _gap(gap: Facts) -> str:
    missing = "nobody knows how many" if gap["missing"] is None else gap["missing"]
    return f"{_ago(gap['age_s'])}: {gap['reason']}; {gap['recovered']} filled in, {missing} missing"


def _latency(latency: Facts) -> str:
    told = []
    for part, name in (("venue", "from the venue"), ("published", "to the bus"), ("sent", "to sockets")):
        typical, worst = latency[f"{part}_p50_s"], latency[f"{part}_p99_s"]
        if typical is not None:
            told.append(f"{name} {typical * 1000:.3g} ms (99 %: {worst * 1000:.3g} ms)")
    return ", ".join(told) or "nothing came in the last minute"


def _clock(clock: Facts) -> list[str]:
    return (
        [] if clock["jumped_s"] is None else [f"jumped by {clock['by_s']:+.1f} s {_ago(clock['jumped_s'])}"]
    )


# --- printing ----------------------------------------------------------------------------------------------


def _print(facts: Facts) -> None:
    verdict = facts["verdict"]
    state = "not served" if facts["state"] is None else facts["state"]["state"]
    told = sections(facts)
    if not sys.stdout.isatty():
        click.echo(f"{facts['topic']}: {state} ({verdict['cause']})\n{verdict['text']}")
        if verdict["advice"]:
            click.echo(verdict["advice"])
        for name, lines in told:
            for number, line in enumerate(lines):
                click.echo(f"{'' if number else name:<12}{line}")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    colour = _COLOURS.get(state, "red")
    console.print(f"[bold]{escape(facts['topic'])}[/]  [{colour} bold]{state}[/]  [dim]{verdict['cause']}[/]")
    console.print(f"[{'green' if verdict['healthy'] else 'yellow'}]{escape(verdict['text'])}[/]")
    if verdict["advice"]:
        console.print(escape(verdict["advice"]))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, lines in told:
        grid.add_row(name, escape("\n".join(lines)))
    console.print(grid)
