"""`/api/v1/log`: the last lines of the log; `/api/v1/logging`: how much is logged, and for how long."""

from __future__ import annotations

from typing import Final

import attrs
from quart import Quart, Response

from pricefeedd import logs
from pricefeedd.logs.recent import LINES
from pricefeedd.web.authority import ChangeRefusedError, check_may_change
from pricefeedd.web.daemon import Daemon
from pricefeedd.web.fields import Choice, Whole, given
from pricefeedd.web.health import iso
from pricefeedd.web.http import Query, asked, body, respond

PATH: Final = "/api/v1/log"
LEVEL_PATH: Final = "/api/v1/logging"

#: Longest time for which the level may be changed: a day.
_LONGEST_S: Final = 86_400


@attrs.frozen(kw_only=True)
class LogQuery(Query):
    """Which lines."""

    after: int = given(Whole(), "Lines after this number; `next` of the last answer.", default=0)
    level: str = given(
        Choice(("info", "warning", "error")), "The least important ones.", default="info", example="warning"
    )
    limit: int = given(Whole(least=1, most=LINES), "The most lines; the oldest come first.", default=LINES)


@attrs.frozen(kw_only=True)
class LevelOrder:
    """How much is to be logged."""

    level: str = given(Choice(logs.LEVELS), "The least that is logged from now on.", example="debug")
    for_s: int | None = given(
        Whole(least=1, most=_LONGEST_S),
        "Then it goes back to what the configuration says; without this it stays until the next change.",
        default=None,
        example=600,
    )


class Log:
    """The handlers, over one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def add_routes(self, app: Quart) -> None:
        """Add the paths to the app."""
        app.add_url_rule(PATH, "log", self.lines)
        app.add_url_rule(LEVEL_PATH, "logging", self.level)
        app.add_url_rule(LEVEL_PATH, "change_logging", self.change, methods=["PUT"])

    async def lines(self) -> Response:
        """Show the last lines."""
        self._check("the log is shown to")
        query = asked(LogQuery)
        page = logs.recent.page(query.after, query.level, query.limit)
        return respond({"lines": page.lines, "next": page.next, "missed": page.missed})

    async def level(self) -> Response:
        """Tell how much is logged."""
        self._check("the log is shown to")
        asked(Query)
        return respond(_facts())

    async def change(self) -> Response:
        """Change how much is logged."""
        check_may_change(self._daemon)
        order = await body(LevelOrder)
        logs.change_level(order.level, order.for_s)
        return respond(_facts())

    def _check(self, what: str) -> None:
        """Refuse whom the log is not for: lines tell of other clients, accounts and hosts.

        Raises:
            ChangeRefusedError: The key is missing or not an administrator's; or no keys are configured, and this is not
                surely this machine.
        """
        try:
            check_may_change(self._daemon)
        except ChangeRefusedError as e:
            why = e.message.replace("changes are taken from", f"{what} programs of")
            raise ChangeRefusedError(e.code, why) from e


def _facts() -> dict[str, object]:
    levels = logs.levels
    return {
        "level": levels.current,
        "configured": levels.configured,
        "until": iso(levels.until_ns),
        **logs.describe(),
    }
