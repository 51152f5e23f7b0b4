"""`/api/v1/balances`: what accounts have, for keys with their scope."""

from __future__ import annotations

from typing import Final

import attrs
from quart import Quart, Response, request

from pricefeedd.errors import StoreAwayError
from pricefeedd.store.memory import AccountState, Row
from pricefeedd.store.records import Slice
from pricefeedd.web.daemon import Daemon
from pricefeedd.web.fields import Text, given
from pricefeedd.web.http import Query, asked, own_scopes, respond
from pricefeedd.web.keys import presented
from pricefeedd.web.span import Paged

_SCOPE: Final = "account:"
_ACCOUNT: Final = Text(longest=64)


@attrs.frozen(kw_only=True)
class BalancesQuery(Query):
    """Which accounts; without these, all that the key may see."""

    account: str | None = given(
        _ACCOUNT, "One account, by its name in the configuration.", default=None, example="main"
    )
    venue: str | None = given(_ACCOUNT, "One venue.", default=None, example="bybit")


@attrs.frozen(kw_only=True)
class BalanceHistoryQuery(Paged):
    """Which rows, by the time at which they came."""

    account: str | None = given(
        _ACCOUNT, "One account, by its name in the configuration.", default=None, example="main"
    )
    venue: str | None = given(_ACCOUNT, "One venue.", default=None, example="bybit")
    coin: str | None = given(_ACCOUNT, "One coin, as the venue spells it.", default=None, example="USDT")


class Balances:
    """The handlers, over one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def add_routes(self, app: Quart) -> None:
        """Add the paths to the app."""
        app.add_url_rule("/api/v1/balances", "balances", self.latest)
        app.add_url_rule("/api/v1/balances/history", "balances_history", self.history)

    def _allowed(self, account: str | None) -> tuple[str, ...] | Response:
        """Return the accounts that the key may see and that are asked for, or the refusal."""
        scopes = own_scopes(self._daemon)
        own = tuple(sorted(s.removeprefix(_SCOPE) for s in scopes if s.startswith(_SCOPE)))
        allowed = own if account is None else tuple(name for name in own if name == account)
        if allowed:
            return allowed
        needed = f"the scope {_SCOPE}{account or 'NAME'}"
        if presented(request.headers, request.args) is None:
            refused = respond({"error": f"a key with {needed} is needed", "code": "UNAUTHORISED"}, 401)
            refused.headers["WWW-Authenticate"] = "Bearer"
            return refused
        return respond({"error": f"the key lacks {needed}", "code": "FORBIDDEN"}, 403)

    async def latest(self) -> Response:
        """Tell the latest balance of each coin, and the totals of each account."""
        query = asked(BalancesQuery)
        allowed = self._allowed(query.account)
        if isinstance(allowed, Response):
            return allowed
        found = [
            account_row(state)
            for state in self._daemon.archive.balances
            if state.account in allowed and query.venue in (None, state.venue)
        ]
        return respond({"total": len(found), "accounts": found})

    async def history(self) -> Response:
        """List what accounts were told of their coins, newest first."""
        query = asked(BalanceHistoryQuery)
        allowed = self._allowed(query.account)
        if isinstance(allowed, Response):
            return allowed
        equal: dict[str, object] = {"account": allowed}
        equal |= {name: value for name in ("venue", "coin") if (value := getattr(query, name))}
        archive = self._daemon.archive
        if archive.store is None:
            body = {"error": "nothing is stored: the configuration has no [store]", "code": "NO_STORE"}
            return respond(body, 404)
        wanted = Slice(
            equal=equal,
            from_us=query.from_us,
            to_us=query.to_us,
            limit=query.limit,
            offset=query.offset,
        )
        try:
            total, rows = await archive.balance_page(wanted)
        except StoreAwayError as e:
            return respond({"error": f"the store cannot be read now: {e}", "code": "STORE_AWAY"}, 503)
        page = {"total": total, "limit": query.limit, "offset": query.offset}
        return respond(page | {"balances": rows})


def account_row(state: AccountState) -> dict[str, object]:
    """Return what clients are told of an account."""
    coins: list[Row] = [state.coins[coin] for coin in sorted(state.coins)]
    return {"venue": state.venue, "account": state.account, "balances": coins, "margin": state.margin}
