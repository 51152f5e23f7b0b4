"""Plays the checks of a venue, in this process or in several, and says how each went."""

from __future__ import annotations

import fnmatch
import random
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from enum import StrEnum
from multiprocessing import get_context

import attrs

from pricefeedd.errors import PluginError, leaves
from pricefeedd.loader import load_plugins
from pricefeedd.testing.conformance.check import CHECKS, Check
from pricefeedd.testing.conformance.scene import Cast, NotApplicableError
from pricefeedd.testing.simulated import SimulatedVenue


class Outcome(StrEnum):
    """How a check went."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "n/a"


@attrs.frozen(kw_only=True)
class Result:
    """One row of the scorecard.

    Attributes:
        check: The check's name.
        market: The market that was played.
        outcome: How it went.
        words: What holds when it passes.
        reason: What did not hold, or why it does not apply; empty when it passed.
        trace: The traceback of a failure.
        seconds: CPU time that it took.
    """

    check: str
    market: str
    outcome: Outcome
    words: str
    reason: str = ""
    trace: str = attrs.field(default="", repr=False)
    seconds: float = 0.0


def cast_of(name: str, *, seed: int = 1, examples: int = 100) -> list[Cast]:
    """Return who plays for an installed venue: one for each of its markets.

    Raises:
        PluginError: No plugin brings the venue, it is broken, or it brings no fake that trades.
    """
    plugins = load_plugins()
    plugins.require("venue", name)
    venue = plugins.venues[name]
    make = plugins.fakes.get(name)
    if make is None:
        raise PluginError(
            f"the plugin of {name!r} brings no fake to play against; return one from pricefeedd_fakes()"
        )
    if not (isinstance(make, type) and issubclass(make, SimulatedVenue)):
        raise PluginError(
            f"the fake of {name!r} is no subclass of pricefeedd.testing.simulated.SimulatedVenue, "
            "which trades by itself and knows what it told"
        )
    return [
        Cast(venue=venue, make_fake=make, market=market, seed=seed, examples=examples)
        for market in venue.markets
    ]


def programme(
    casts: Sequence[Cast], *, market: str | None = None, pattern: str = "*", skip: str = ""
) -> list[tuple[Check, Cast]]:
    """Return what is to be played: everything on the first market, and what fits on the others.

    Args:
        market: Play everything on this market, and nothing on the others.
        pattern: Play only checks whose names fit, with `*` and `?`.
        skip: Leave out those whose names fit this.
    """
    chosen = [cast for cast in casts if market in (None, cast.market)]
    return [
        (check, cast)
        for number, cast in enumerate(chosen)
        for check in CHECKS.values()
        if (number == 0 or check.every_market)
        and fnmatch.fnmatchcase(check.name, pattern)
        and not fnmatch.fnmatchcase(check.name, skip)
    ]


def play(check: Check, cast: Cast) -> Result:
    """Play one check, and return how it went, whatever happens."""
    base = Result(check=check.name, market=cast.market, outcome=Outcome.PASSED, words=check.words)
    if why := check.missing(cast):
        return attrs.evolve(base, outcome=Outcome.NOT_APPLICABLE, reason=why)
    random.seed(cast.seed)
    began = time.process_time()
    reason = trace = ""
    outcome = Outcome.PASSED
    try:
        check.play(cast)
    except Exception as e:  # noqa: BLE001  # the plugin's failure, whatever it is, is what we report
        found = list(leaves(e))
        if all(isinstance(one, NotApplicableError) for one in found):
            outcome, reason = Outcome.NOT_APPLICABLE, str(found[0])
        else:
            outcome = Outcome.FAILED
            reason = "; ".join(dict.fromkeys(_words(one) for one in found))
            trace = "".join(traceback.format_exception(e))
    seconds = round(time.process_time() - began, 2)
    return attrs.evolve(base, outcome=outcome, reason=reason, trace=trace, seconds=seconds)


def _words(error: BaseException) -> str:
    """Return what an exception says; assertions speak for themselves."""
    text = " ".join(str(error).split())
    if isinstance(error, AssertionError) and text:
        return text[:600]
    return f"{type(error).__name__}: {text}"[:600]


def play_all(
    name: str,
    *,
    market: str | None = None,
    pattern: str = "*",
    skip: str = "",
    seed: int = 1,
    examples: int = 100,
    jobs: int = 1,
    prepare: Callable[[], None] = lambda: None,
) -> Iterator[Result]:
    """Play the checks of a venue, and yield each result as soon as it and those before it are there.

    Args:
        prepare: Called first in each further process.

    Raises:
        PluginError: As `cast_of`.
    """
    casts = cast_of(name, seed=seed, examples=examples)
    if jobs == 1:
        for check, cast in programme(casts, market=market, pattern=pattern, skip=skip):
            yield play(check, cast)
        return
    # Fresh interpreters: what was imported here must not colour what is found there.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=prepare) as pool:
        rows = [
            pool.submit(_play_by_name, name, cast.market, check.name, seed, examples)
            for check, cast in programme(casts, market=market, pattern=pattern, skip=skip)
        ]
        for row in rows:
            yield row.result()


def _play_by_name(name: str, market: str, check: str, seed: int, examples: int) -> Result:
    (cast,) = (c for c in cast_of(name, seed=seed, examples=examples) if c.market == market)
    return play(CHECKS[check], cast)
