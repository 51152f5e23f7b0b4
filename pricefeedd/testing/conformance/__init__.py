"""The conformance kit: the laws of codecs and every fault of a venue, against any plugin that brings a fake.

`pricefeedd plugin-test NAME` prints its scorecard. A plugin's own tests need one line:

    TestConformance = conformance_tests("acme")
"""

from __future__ import annotations

from typing import Any

from pricefeedd.testing.conformance import codec, connection, data, manners  # each brings its checks
from pricefeedd.testing.conformance.check import CHECKS, Check, check
from pricefeedd.testing.conformance.run import Outcome, Result, cast_of, play, play_all, programme
from pricefeedd.testing.conformance.scene import Cast, NotApplicableError, Scene

__all__ = [
    "CHECKS",
    "Cast",
    "Check",
    "NotApplicableError",
    "Outcome",
    "Result",
    "Scene",
    "cast_of",
    "check",
    "conformance_tests",
    "play",
    "play_all",
    "programme",
]

_BRING_CHECKS = (codec, connection, data, manners)


def conformance_tests(*names: str, examples: int = 50) -> type:
    """Return a class of tests, one for each check of each venue; bind it to a name that begins with `Test`.

    What does not apply to a venue is skipped with the reason.

    Args:
        names: Venues whose plugins are installed.
        examples: How many times Hypothesis tries each law of codecs.
    """
    import pytest  # late: the kit itself needs it as little as the daemon does

    rows = []
    for name in names:
        casts = cast_of(name, examples=examples)
        for one, cast in programme(casts):
            market = "" if cast is casts[0] else f"-{cast.market}"
            rows.append(pytest.param(one, cast, id=f"{name}{market}-{one.name}"))

    class Conformance:
        """The kit's checks."""

        @pytest.mark.parametrize(("check", "cast"), rows)
        def test_conforms(self, check: Any, cast: Any) -> None:
            """A check holds, or does not apply."""
            result = play(check, cast)
            if result.outcome is Outcome.NOT_APPLICABLE:
                pytest.skip(result.reason)
            if result.outcome is Outcome.FAILED:
                pytest.fail(f"{result.words}\n{result.reason}\n\n{result.trace}", pytrace=False)

    return Conformance
