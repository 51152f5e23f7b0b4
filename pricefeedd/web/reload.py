"""`/api/v1/reload`: the configuration is read again, and what differs is changed."""

from __future__ import annotations

from typing import Final

import attrs
from quart import Quart, Response

from pricefeedd.config.delta import Delta
from pricefeedd.reload import ReloadRefusedError
from pricefeedd.web.authority import check_may_change
from pricefeedd.web.daemon import Daemon
from pricefeedd.web.fields import Flag, given
from pricefeedd.web.http import Query, asked, respond
from pricefeedd.web.operation import TEXT, Operation
from pricefeedd.web.schema import closed

PATH: Final = "/api/v1/reload"


@attrs.frozen(kw_only=True)
class ReloadQuery(Query):
    """Whether to change anything."""

    dry_run: bool = given(Flag(), "Only tell what would change.", default=False, example=True)


_LINES: Final = {"type": "array", "items": TEXT}
_FORBIDDEN: Final = (
    "without [[web.keys]] changes are taken from this machine only; configure a key with the scope admin"
)

RELOAD: Final = (
    Operation(
        path=PATH,
        name="reload",
        method="post",
        summary="Read the configuration again",
        about="Changes what differs, and nothing else: topics that stay lose no message, and no client its connection. A file with "
        "mistakes changes nothing. What cannot change while running, such as `web.listen`, is told in `waiting` and takes effect "
        "at the next start.",
        query=ReloadQuery,
        schema=closed(
            {"applied": {"type": "boolean"}, "changes": _LINES, "waiting": _LINES},
        ),
        example={
            "applied": True,
            "changes": ["venues.binance.subscribe[spot].instruments: + SOL-USDT"],
            "waiting": ["web.listen: + 0.0.0.0:8765"],
        },
        refused={
            401: {"error": "the key is not known here", "code": "AUTHENTICATION_FAILED"},
            403: {"error": _FORBIDDEN, "code": "FORBIDDEN"},
            409: {
                "error": "/etc/pricefeedd/pricefeedd.toml: 1 problem\n  /etc/pricefeedd/pricefeedd.toml:3: web: unknown key "
                "'prot', did you mean 'port'?",
                "code": "BAD_CONFIGURATION",
            },
        },
        scope="admin",
    ),
)


class Reload:
    """The handler, over one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def add_routes(self, app: Quart) -> None:
        """Add the path to the app."""
        app.add_url_rule(PATH, "reload", self.reload, methods=["POST"])

    async def reload(self) -> Response:
        """Read the configuration again, and say what became of it."""
        check_may_change(self._daemon)
        query = asked(ReloadQuery)
        reloader = self._daemon.reloader
        try:
            found: Delta = await (reloader.look() if query.dry_run else reloader.reload())
        except ReloadRefusedError as e:
            return respond({"error": str(e), "code": "BAD_CONFIGURATION"}, 409)
        body = {"applied": not query.dry_run, "changes": found.lines, "waiting": found.waiting}
        return respond(body)
