"""What an operator is told of sinks: `/status`, `/metrics`, and `/ready` without a 503."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pricefeedd.config import Config, SinkConfig, VenueConfig
from pricefeedd.config.settings import AccountConfig
from pricefeedd.hookspecs import Lanes, Sink
from pricefeedd.lanes import SinkLanes
from pricefeedd.web.openapi_sinks import SINK


async def _run(settings: object, lanes: Lanes) -> None:
    """Do nothing."""


@pytest.fixture
async def http() -> Any:
    async with httpx.AsyncClient(timeout=10) as client:
        yield client


async def test_sinks_are_shown_and_what_is_amiss_is_said_without_a_503(
    start_web: Any, http: Any, tmp_path: Path
) -> None:
    web = await start_web()
    market = web.daemon.stats.market("binance", "spot")
    market.connections, market.last_message_ns = 1, time.time_ns()
    account = AccountConfig(api_key="k", api_secret="s", channels=("order",))
    venue = VenueConfig(name="bybit", plugin="bybit", accounts={"main": account})
    config = Config(venues={"bybit": venue}, state_dir=tmp_path)
    section = SinkConfig(name="queue", plugin="queue", accounts=("*",), spool_bytes=100_000)
    keeps = SinkLanes(
        web.daemon.bus, Sink(name="queue", api_version=1, run=_run, keeps=True), config, section
    )
    plain = SinkLanes(
        web.daemon.bus,
        Sink(name="file", api_version=1, run=_run),
        config,
        SinkConfig(name="file", plugin="file"),
    )

    def refresh() -> None:
        now_ns = time.time_ns()
        web.daemon.facts = {"sinks": {"queue": keeps.describe(now_ns), "file": plain.describe(now_ns)}}

    keeps.report.state, plain.report.state = "up", "up"
    keeps.report.delivered, keeps.report.last_delivered_ns = 7, time.time_ns()
    keeps.report.drop("slow", 3)
    keeps.report.queues["pricefeedd.order"] = 5
    keeps.report.gauges["peers"] = 2
    assert keeps.kept is not None
    await keeps.kept.spool.append([b"x" * 1000] * 81)
    refresh()

    ready = await http.get(f"{web.http}/ready")
    assert (ready.status_code, ready.json()["reasons"]) == (200, ["the spool of sink queue is 84% full"])
    status = (await http.get(f"{web.http}/status")).json()
    for sink in status["sinks"].values():
        jsonschema.validate(sink, SINK)
    queue = status["sinks"]["queue"]
    assert queue["spool"]["records"] == 81
    assert queue["spool"]["limit_bytes"] == 100_000
    assert 0 <= queue["spool"]["oldest_age_s"] < 10
    assert queue["delivered"] == 7
    assert queue["last_delivered"].endswith("+00:00")
    assert status["sinks"]["file"]["spool"] is None

    text = (await http.get(f"{web.http}/metrics")).text
    samples = {
        (sample.name, sample.labels.pop("sink"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("pricefeedd_sink_")
    }
    assert samples["pricefeedd_sink_up", "queue"] == 1
    assert samples["pricefeedd_sink_state", "queue", "up"] == 1
    assert samples["pricefeedd_sink_state", "queue", "down"] == 0
    assert samples["pricefeedd_sink_delivered_total", "queue"] == 7
    assert samples["pricefeedd_sink_dropped_total", "queue", "slow"] == 3
    assert samples["pricefeedd_sink_waiting", "file"] == 0
    assert samples["pricefeedd_sink_spool_records", "queue"] == 81
    assert samples["pricefeedd_sink_spool_bytes", "queue"] == keeps.kept.spool.bytes
    assert ("pricefeedd_sink_spool_bytes", "file") not in samples
    assert samples["pricefeedd_sink_queue_messages", "queue", "pricefeedd.order"] == 5
    assert samples["pricefeedd_sink_gauge", "queue", "peers"] == 2
    assert samples["pricefeedd_sink_reconnects_total", "queue"] == 0

    plain.report.state, plain.report.reason = "down", "no route to host"
    await keeps.kept.spool.done(81)
    await keeps.kept.spool.close()
    refresh()
    ready = await http.get(f"{web.http}/ready")
    assert (ready.status_code, ready.json()["reasons"]) == (200, ["sink file is down: no route to host"])


async def test_what_a_sink_lost_is_told_before_it_comes_back_for_more(start_web: Any, tmp_path: Path) -> None:
    web = await start_web()
    section = SinkConfig(name="slow", plugin="slow", queue_bytes=1024)
    sink = Sink(name="slow", api_version=1, run=_run)
    lanes = SinkLanes(web.daemon.bus, sink, Config(state_dir=tmp_path), section)
    web.daemon.trade(100)
    before = lanes.describe(0)
    assert 0 < before["lane_bytes"] <= 1024
    assert before["dropped"]["slow"] > 50
    got = await lanes.receive()
    after = lanes.describe(0)
    assert len(got) + after["dropped"]["slow"] == 100
    assert after["dropped"] == before["dropped"], "each counts once"
    assert after["lane_bytes"] == 0
