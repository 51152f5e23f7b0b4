"""Every metric and label that alerts and dashboard name is one that a real daemon exports.

Daemons of several kinds run as a user would run them: venues, an account, sinks of which one is away, a store, the old
names, and a relay. What they show is held against each expression, parsed.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import httpx
import promql_parser as promql
import pytest
import trio
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from pricefeedd.bus import Bus
from pricefeedd.config import Config, SinkConfig
from pricefeedd.hookspecs import Lanes, Sink
from pricefeedd.lanes import SinkLanes
from pricefeedd.web import sink_metrics
from pricefeedd_binance.testing import BinanceFake

CONTRIB = Path(__file__).parents[2] / "contrib"
PROMETHEUS = CONTRIB / "prometheus"
DASHBOARD = CONTRIB / "grafana" / "dashboards" / "pricefeedd.json"

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}

#: What Prometheus itself puts on every series.
SCRAPED = frozenset({"job", "instance"})

#: Labels whose values come from far more than a test can make happen.
OPEN_VALUES = frozenset({"job", "instance", "code", "elector"})

#: What the dashboard's variables stand for.
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*", "$venue": ".*", "$market": ".*"}

CONFIG = """
[web]
listen = ["127.0.0.1:0"]
max_clients = 1
[metrics]
compat = true
[store]
url = "sqlite:///{state_dir}/test.db"
[logging]
format = "json"
[[venues.binance.subscribe]]
market = "spot"
instruments = ["BTC-USDT", "ETH-USDT"]
channels = ["trade", "quote", "ticker", "candle_1m", "book"]
[[venues.binance.subscribe]]
market = "linear"
channels = ["trade"]
on_demand = true
[venues.bybit.endpoints]
# Nobody listens there.
spot_ws = "ws://127.0.0.1:1"
spot_rest = "http://127.0.0.1:1"
private_ws = "ws://127.0.0.1:1"
private_rest = "http://127.0.0.1:1"
[venues.bybit.accounts.main]
api_key = { env = "BYBIT_KEY" }
api_secret = { env = "BYBIT_SECRET" }
channels = ["order", "balance"]
[sinks.zmq]
bind = "tcp://127.0.0.1:*"
[sinks.jsonl]
[sinks.rabbitmq]
url = { env = "RABBITMQ_URL" }
accounts = ["*"]
queue_bytes = 1024
"""

RELAY = """
[web]
listen = ["127.0.0.1:0"]
[logging]
format = "json"
[sources.relay]
zmq = ["ADDRESS"]
"""


@attrs.define
class Exported:
    """What daemons show: the values seen of each label, by the name of the sample."""

    labels: dict[str, dict[str, set[str]]] = attrs.field(factory=dict)

    def add(self, text: str) -> None:
        """Take what one daemon shows, as OpenMetrics."""
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.take(sample.name, sample.labels)

    def take(self, name: str, labels: Mapping[str, str]) -> None:
        """Take one sample."""
        known = self.labels.setdefault(name, {})
        for label, value in labels.items():
            known.setdefault(label, set()).add(value)


async def _run(settings: object, lanes: Lanes) -> None:
    """Do nothing."""


def _told_by_a_broker(exported: Exported, folder: Path) -> None:
    """Add what only a sink shows whose other side tells it how many messages wait there."""
    lanes = SinkLanes(
        Bus(),
        Sink(name="queue", api_version=1, run=_run),
        Config(state_dir=folder),
        SinkConfig(name="queue", plugin="queue"),
    )
    lanes.report.queues["pricefeedd.trade"] = 5
    for family in sink_metrics.families({"queue": lanes.describe(0)}):
        for sample in family.samples:
            exported.take(sample.name, sample.labels)


async def _base(daemon: Any) -> str:
    """Return where a daemon serves, once it does."""
    return str(json.loads(await daemon.until('"serving"', where="err", within_s=60))["binds"][0])


async def _metrics(base: str) -> str:
    async with httpx.AsyncClient(timeout=10) as http:
        return (await http.get(f"{base}/metrics", headers=OPENMETRICS)).text


async def _until(base: str, *wanted: str) -> str:
    """Return what a daemon shows once all of these are in it."""
    missing: list[str] = []
    with trio.move_on_after(40):
        while True:
            text = await _metrics(base)
            missing = [pattern for pattern in wanted if not re.search(pattern, text, re.MULTILINE)]
            if not missing:
                return text
            await trio.sleep(0.2)
    raise AssertionError(f"never shown: {missing}\n{text}")


@pytest.fixture(scope="module")
def once() -> list[Exported]:
    """Return where is kept what was found: the daemons need some seconds."""
    return []


@pytest.fixture
async def exported(
    once: list[Exported], cli: Any, exchange: BinanceFake, open_reader: Any, tmp_path: Path
) -> Exported:
    """Return what daemons of all kinds show."""
    if once:
        return once[0]
    cli.environ |= {
        "BYBIT_KEY": "key",
        "BYBIT_SECRET": "secret",
        "RABBITMQ_URL": "amqp://guest:guest@127.0.0.1:1/%2F",  # nobody listens there
        "STATE_DIRECTORY": str(tmp_path / "state"),
    }
    daemon = await cli.start("run", "--config", cli.config(CONFIG))
    base = await _base(daemon)
    address = json.loads(await daemon.until('"sink is open"', where="err", within_s=30))["addresses"][0]
    reader = await open_reader(base)
    await reader.send({"op": "subscribe", "id": 1, "topics": ["*:*:*", "trade:binance:BTC-USDT-PERP"]})
    await reader.until("trade")
    await reader.until("book")
    refused = await open_reader(base)
    await refused.until("bye")
    subscription = {
        "venue": "binance",
        "channel_type": "trades",
        "symbol": "BTCUSDT",
        "requesting_service": "t",
    }
    async with httpx.AsyncClient(timeout=10) as http:
        assert (await http.post(f"{base}/api/v1/subscriptions", json=subscription)).status_code == 201
    for key in [key for key in cli.environ if key.startswith("PRICEFEEDD__VENUES")]:
        del cli.environ[key]  # a relay has none
    relay_state = {"STATE_DIRECTORY": str(tmp_path / "relay")}
    relay = await cli.start(
        "run", "--config", cli.config(RELAY.replace("ADDRESS", address), "relay.toml"), environ=relay_state
    )
    relay_base = await _base(relay)
    found = Exported()
    found.add(await _until(relay_base, r"^pricefeedd_source_lag_seconds", r"^pricefeedd_source_up\S* 1"))
    found.add(
        await _until(
            base,
            r"^pricefeedd_send_latency_seconds_count\S* [1-9]",
            r"^pricefeedd_sink_dropped_total",
            r"^pricefeedd_venue_clock_bound_seconds",
            r"^pricefeedd_account_live",
            r"^pricefeedd_store_rows_total",
            r"^pricefeedd_loop_lag_seconds_count [1-9]",
            r"^connector_quotes_processed_total",
            r'state="live"',
            r"^pricefeedd_clients_closed_total",
        )
    )
    _told_by_a_broker(found, tmp_path)
    found.take("up", {})
    once.append(found)
    return found


# --- What expressions need --------------------------------------------------------------------------------


class UnknownError(Exception):
    """An expression names what nobody exports."""


@attrs.frozen
class Checker:
    """Follows an expression through, and knows which labels come out of each part of it.

    Attributes:
        known: The labels of each name: those exported, and those that rules record.
    """

    known: Mapping[str, Mapping[str, set[str]]]
    recorded: dict[str, frozenset[str]] = attrs.field(factory=dict)

    def labels(self, expr: Any) -> frozenset[str]:
        """Return the labels of what an expression gives.

        Raises:
            UnknownError: It asks for a name or a label that there is not.
        """
        match expr:
            case promql.VectorSelector():
                return self._selected(expr)
            case promql.MatrixSelector():
                return self._selected(expr.vector_selector)
            case promql.AggregateExpr():
                return self._aggregated(expr)
            case promql.BinaryExpr():
                return self._joined(expr)
            case promql.Call():
                inner = [self.labels(argument) for argument in expr.args]
                found = frozenset().union(*inner) if inner else frozenset()
                if expr.func.name == "histogram_quantile":
                    if "le" not in inner[1]:
                        raise UnknownError("a quantile of what has no `le`")
                    found -= {"le"}
                return found
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                return self.labels(expr.expr)
            case promql.NumberLiteral() | promql.StringLiteral():
                return frozenset()
        raise UnknownError(f"{type(expr).__name__} is not expected here")

    def _selected(self, selector: Any) -> frozenset[str]:
        name = selector.name
        if name in self.recorded:
            labels = self.recorded[name]
            values: Mapping[str, set[str]] = {}
        elif name in self.known:
            values = self.known[name]
            labels = frozenset(values) | SCRAPED
        else:
            raise UnknownError(f"{name} is not exported")
        for matcher in selector.matchers.matchers:
            if matcher.name not in labels:
                raise UnknownError(f"{name} has no label {matcher.name}, but {sorted(labels)}")
            exact = matcher.op == promql.MatchOp.Equal and matcher.name not in OPEN_VALUES
            if exact and values and matcher.value not in values[matcher.name]:
                raise UnknownError(
                    f"{name} has no {matcher.name}={matcher.value!r}, but {values[matcher.name]}"
                )
        return labels

    def _aggregated(self, expr: Any) -> frozenset[str]:
        labels = self.labels(expr.expr)
        if expr.modifier is None:
            return frozenset()
        named = frozenset(expr.modifier.labels)
        if named - labels:
            raise UnknownError(f"{sorted(named - labels)} of {expr} is not in {sorted(labels)}")
        return named if expr.modifier.type == promql.AggModifierType.By else labels - named

    def _joined(self, expr: Any) -> frozenset[str]:
        left, right = self.labels(expr.lhs), self.labels(expr.rhs)
        scalar = not (_vector(expr.lhs) and _vector(expr.rhs))
        if scalar:
            return left | right
        matching = None if expr.modifier is None else expr.modifier.matching
        if matching is None:
            if str(expr.op) != "or" and left != right:
                raise UnknownError(f"{expr}: {sorted(left)} never matches {sorted(right)}")
        else:
            named = frozenset(matching.labels)
            if named - left or named - right:
                raise UnknownError(f"{expr}: {sorted(named)} is not on both sides")
        return left & right if str(expr.op) == "or" else left


def _vector(expr: Any) -> bool:
    match expr:
        case promql.NumberLiteral() | promql.StringLiteral():
            return False
        case promql.ParenExpr() | promql.UnaryExpr():
            return _vector(expr.expr)
        case promql.BinaryExpr():
            return _vector(expr.lhs) or _vector(expr.rhs)
        case promql.Call():
            return expr.func.name != "time"
    return True


def parsed(text: str) -> Any:
    for variable, value in VARIABLES.items():
        text = text.replace(variable, value)
    return promql.parse(text)


def _rules(name: str) -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((PROMETHEUS / name).read_text())["groups"]:
        yield from group["rules"]


def _dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def checker(exported: Exported) -> Checker:
    made = Checker(exported.labels)
    for rule in _rules("recording.yml"):
        made.recorded[rule["record"]] = made.labels(parsed(rule["expr"]))
    return made


# --- The tests --------------------------------------------------------------------------------------------


async def test_alerts_and_dashboard_ask_for_what_daemons_export(exported: Exported) -> None:
    check = checker(exported)
    wrong: list[str] = []

    def look(where: str, expression: str, shown: str = "", pattern: str = r"\{\{\s*(\w+)\s*\}\}") -> None:
        try:
            labels = check.labels(parsed(expression))
            for label in re.findall(pattern, shown):
                if label not in labels:
                    raise UnknownError(f"{shown!r} shows {label}, and there are {sorted(labels)}")
        except (UnknownError, ValueError) as e:
            wrong.append(f"{where}: {e}")

    for rule in _rules("alerts.yml"):
        look(rule["alert"], rule["expr"], " ".join(rule["annotations"].values()), r"\$labels\.(\w+)")
    dashboard = _dashboard()
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            legend = "" if target["legendFormat"] == "__auto" else target["legendFormat"]
            look(panel["title"], target["expr"], legend)
    for annotation in dashboard["annotations"]["list"][1:]:
        look(annotation["name"], annotation["expr"], annotation["textFormat"])
    for variable in dashboard["templating"]["list"][1:]:
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
        assert asked is not None, variable["definition"]
        look(variable["name"], asked[1], f"{{{{{asked[2]}}}}}")
    assert not wrong, "\n".join(wrong)


async def test_operators_can_look_up_every_metric_of_ours(exported: Exported) -> None:
    text = (PROMETHEUS / "README.md").read_text()
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    names = [name for cell in cells for name in re.findall(r"`(\w+\*?)`", cell)]
    told = {f"pricefeedd{name}" if name.startswith("_") else name for name in names}
    wild = tuple(name.removesuffix("*") for name in told if name.endswith("*"))
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported.labels}
    ours = {name for name in shown if name.startswith(("pricefeedd_", "connector_"))}
    assert not {name for name in ours - told if not name.startswith(wild)}, "shown, and not told"
    # Nothing was reloaded and nobody lost the lead; the proxy is a process of its own.
    absent = {"pricefeedd_reload_timestamp_seconds", "pricefeedd_leader_since_timestamp_seconds"}
    mine = {name for name in told if not name.endswith("*") and not name.startswith("zmq_proxy_")}
    assert not mine - shown - absent, "told, and not shown"


async def test_the_old_names_are_there_to_the_letter(exported: Exported) -> None:
    market = {"exchange", "contract_type"}
    wanted = {
        "connector_quotes_processed_total": market | {"is_closed"},
        "connector_quote_latency_seconds_bucket": market | {"le"},
        "connector_active_connections": market,
        "connector_connection_errors_total": market | {"error_type"},
        "connector_circuit_breaker_state": market,
        "connector_queue_depth_closed": market,
        "connector_queue_blocking_events_total": market,
        "connector_duplicates_filtered_total": market,
        "websocket_messages_processed": set(),
        "websocket_messages_by_symbol": {"symbol"},
        "websocket_connection_errors": set(),
        "websocket_last_message_timestamp_seconds": set(),
        "message_processing_seconds_bucket": {"le"},
        "message_processing_seconds_count": set(),
    }
    found = {name: set(exported.labels.get(name, {"absent": set()})) for name in wanted}
    assert found == wanted
    assert exported.labels["websocket_messages_by_symbol"]["symbol"] >= {"BTC-USDT", "ETH-USDT"}
    assert exported.labels["connector_quotes_processed_total"]["contract_type"] == {"spot"}


def test_the_checker_finds_what_is_wrong() -> None:
    check = Checker({"a": {"venue": {"okx"}}, "h_bucket": {"le": {"1"}}, "b": {"sink": {"x"}}})
    for text in (
        "c",
        'a{market="spot"}',
        'a{venue="binance"}',
        "sum by (market) (a)",
        "a / b",
        "a and on (venue) b",
        "histogram_quantile(0.9, sum by (job) (rate(h_bucket[5m])))",
    ):
        with pytest.raises(UnknownError):
            check.labels(parsed(text))
    assert check.labels(parsed("sum by (venue) (rate(a[5m])) > 0")) == {"venue"}
    assert check.labels(parsed("time() - a")) == {"venue", "job", "instance"}
    assert check.labels(parsed("a == 1 and on (job) b == 0")) == {"venue", "job", "instance"}


def test_alerts_say_what_to_do() -> None:
    for rule in _rules("alerts.yml"):
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "action"}, rule["alert"]
        assert all(len(text) > 10 for text in rule["annotations"].values()), rule["alert"]
    names = [rule["alert"] for rule in _rules("alerts.yml")]
    assert len(set(names)) == len(names)
    played = {test["name"] for test in yaml.safe_load((PROMETHEUS / "tests.yml").read_text())["tests"]}
    assert played == set(names), "every alert is played"


def test_the_dashboard_can_be_laid_out_and_chosen_from() -> None:
    dashboard = _dashboard()
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not cells & taken, f"{panel['title']} lies over another"
        taken |= cells
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == [
        "datasource",
        "instance",
        "venue",
        "market",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "recording.yml", "alerts.yml"),
        ("test", "rules", "tests.yml"),
    ],
    ids=" ".join,
)
def test_prometheus_itself_takes_them(program: Callable[[str], str], arguments: tuple[str, ...]) -> None:
    command = [program("promtool"), *arguments]
    done = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_prometheus_itself_takes_what_we_export(program: Callable[[str], str], cli: Any) -> None:
    """Its linter of expositions has nothing to say of our own names; those of others are as they were."""
    path = cli.config('[web]\nlisten = ["127.0.0.1:0"]\n[logging]\nformat = "json"\n')
    daemon = await cli.start("run", "--config", path)
    base = await _base(daemon)
    async with httpx.AsyncClient(timeout=10) as http:
        plain = (await http.get(f"{base}/metrics")).content
    lint = [program("promtool"), "check", "metrics"]
    done = await trio.run_process(lint, stdin=plain, capture_stdout=True, capture_stderr=True, check=False)
    said = (done.stdout + done.stderr).decode().splitlines()
    assert not [line for line in said if line.startswith("pricefeedd_")]
