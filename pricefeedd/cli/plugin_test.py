"""The conformance kit against an installed plugin."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import partial

import click
import orjson

from pricefeedd.cli import EXIT_CRASH
from pricefeedd.loader import load_plugins
from pricefeedd.logs import configure
from pricefeedd.testing.conformance import CHECKS, Outcome, Result, cast_of, play_all, programme

#: What goes wrong is wanted here, and told by the scorecard: logs would only hide it.
_quiet = partial(configure, "critical", "auto")

_MARKS = {Outcome.PASSED: "green", Outcome.FAILED: "bold red", Outcome.NOT_APPLICABLE: "dim"}


@click.command("plugin-test")
@click.argument("name")
@click.option("--market", help="Play everything on this market; by default on the venue's first.")
@click.option(
    "--check", "pattern", default="*", help="Only checks whose names fit, with * and ?; shows tracebacks."
)
@click.option("--skip", default="", help="Leave out checks whose names fit, such as day, which is long.")
@click.option(
    "--examples", default=100, show_default=True, type=click.IntRange(min=1), help="Tries per law of codecs."
)
@click.option(
    "--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Processes at work at once."
)
@click.option("--seed", default=1, show_default=True, help="Of the simulated market.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def plugin_test(
    name: str,
    market: str | None,
    pattern: str,
    skip: str,
    examples: int,
    jobs: int,
    seed: int,
    as_json: bool,
) -> None:
    """Play every fault of a venue against the plugin that brings NAME, and print a scorecard.

    The plugin must bring a fake of its venue. Ends with 0 when all checks hold, with 1 when one fails.
    """
    _quiet()
    casts = cast_of(name)
    markets = load_plugins().venues[name].market_names
    market = markets.get(market, market) if market is not None else None
    known = [cast.market for cast in casts]
    if market is not None and market not in known:
        raise click.BadParameter(f"{name} has no market {market!r}; there is {', '.join(known)}")
    if not programme(casts, market=market, pattern=pattern, skip=skip):
        raise click.BadParameter(f"no check is named {pattern!r}; there is {', '.join(CHECKS)}")
    rows = play_all(
        name,
        market=market,
        pattern=pattern,
        skip=skip,
        seed=seed,
        examples=examples,
        jobs=jobs,
        prepare=_quiet,
    )
    results = _as_json(name, rows) if as_json else _as_text(name, rows, traces=pattern != "*")
    if any(result.outcome is Outcome.FAILED for result in results):
        sys.exit(EXIT_CRASH)


def _as_json(name: str, rows: Iterable[Result]) -> list[Result]:
    results = list(rows)
    document = {
        "venue": name,
        "passed": not any(result.outcome is Outcome.FAILED for result in results),
        "checks": [
            {
                "check": result.check,
                "market": result.market,
                "outcome": result.outcome.value,
                "words": result.words,
                "reason": result.reason,
                "seconds": result.seconds,
            }
            for result in results
        ],
    }
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    return results


def _as_text(name: str, rows: Iterable[Result], *, traces: bool) -> list[Result]:
    results = []
    if sys.stdout.isatty():
        results = _table(name, rows)
    else:
        click.echo("check\tmarket\toutcome\tseconds\tsays")
        for result in rows:
            results.append(result)
            click.echo(
                f"{result.check}\t{result.market}\t{result.outcome}\t{result.seconds:.2f}\t{_says(result)}"
            )
    if traces:
        for result in results:
            if result.trace:
                click.echo(f"\n{result.check} on {result.market}:\n{result.trace}", err=True)
    click.echo(_sum(results))
    return results


def _table(name: str, rows: Iterable[Result]) -> list[Result]:
    """Print a table that grows as the checks are played."""
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    table = Table(title=name, header_style="bold")
    for column in ("check", "market", "outcome", "s"):
        table.add_column(column, no_wrap=True, justify="right" if column == "s" else "left")
    table.add_column("says")
    results = []
    with Live(table, console=Console(), vertical_overflow="visible"):
        for result in rows:
            results.append(result)
            style = _MARKS[result.outcome]
            table.add_row(
                result.check,
                result.market,
                Text(result.outcome.value, style=style),
                f"{result.seconds:.1f}",
                Text(_says(result), style="dim" if result.outcome is not Outcome.FAILED else ""),
            )
    return results


def _says(result: Result) -> str:
    return result.reason or result.words


def _sum(results: list[Result]) -> str:
    """Return one line for all: how many checks went how."""
    counts = {outcome: sum(r.outcome is outcome for r in results) for outcome in Outcome}
    seconds = sum(result.seconds for result in results)
    return (
        f"{counts[Outcome.PASSED]} passed, {counts[Outcome.FAILED]} failed, "
        f"{counts[Outcome.NOT_APPLICABLE]} n/a, in {seconds:.0f} s of CPU"
    )
