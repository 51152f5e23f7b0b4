"""What venues and accounts tell of themselves beside their counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric


def families(sessions: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    """Yield what `/status` says of venues as metric families."""
    budget = GaugeMetricFamily(
        "pricefeedd_rate_budget_left",
        "What is left of a rate budget of the venue, in its own units.",
        labels=("venue", "budget"),
    )
    capacity = GaugeMetricFamily(
        "pricefeedd_rate_budget_capacity",
        "What we allow ourselves of a rate budget, in its own units.",
        labels=("venue", "budget"),
    )
    queue = GaugeMetricFamily(
        "pricefeedd_gate_queue_batches",
        "Reads that wait between a venue's sessions and its gates.",
        labels=("venue",),
    )
    limit = GaugeMetricFamily(
        "pricefeedd_gate_queue_limit_batches", "Most of them; then sessions wait.", labels=("venue",)
    )
    clock = GaugeMetricFamily(
        "pricefeedd_venue_clock_bound_seconds",
        "The venue's clock is ahead of ours by this at least, and at most, by the times on its answers to requests.",
        labels=("venue", "bound"),
    )
    on_demand = GaugeMetricFamily(
        "pricefeedd_on_demand_topics",
        "Topics that are served because they are read.",
        labels=("venue", "state"),
    )
    for venue, facts in sessions.items():
        for name, left in facts.get("budgets", {}).items():
            budget.add_metric((venue, name), left)
        for name, most in facts.get("budget_limits", {}).items():
            capacity.add_metric((venue, name), most)
        if "queue" in facts:
            queue.add_metric((venue,), facts["queue"]["batches"])
            limit.add_metric((venue,), facts["queue"]["limit"])
        if facts.get("clock"):
            clock.add_metric((venue, "least"), facts["clock"]["least_s"])
            clock.add_metric((venue, "most"), facts["clock"]["most_s"])
        for state, count in facts.get("on_demand", {}).items():
            on_demand.add_metric((venue, state), count)
    yield from (budget, capacity, queue, limit, clock, on_demand)


def of_accounts(accounts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[Metric]:
    """Yield what `/status` says of accounts as metric families."""
    labels = ("venue", "account", "channel")
    live = GaugeMetricFamily(
        "pricefeedd_account_live", "1 while the channel of the account is live, else 0.", labels=labels
    )
    whole = GaugeMetricFamily(
        "pricefeedd_account_whole",
        "1 while all that happened to the account is known, else 0.",
        labels=labels,
    )
    for venue, names in accounts.items():
        for account, facts in names.items():
            for channel, told in facts["channels"].items():
                live.add_metric((venue, account, channel), int(told["state"] == "live"))
                whole.add_metric((venue, account, channel), int(told["whole"]))
    yield from (live, whole)
