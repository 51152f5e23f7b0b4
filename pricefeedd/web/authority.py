"""Who may change something: administrators by their key; or, where there are no keys, programs of this machine."""

from __future__ import annotations

import ipaddress
from typing import Final

from quart import request

from pricefeedd.errors import PricefeeddError
from pricefeedd.web.daemon import Daemon
from pricefeedd.web.keys import ADMIN, find_key, presented

#: A proxy says with these for whom it asks.
_FORWARDED: Final = ("Forwarded", "X-Forwarded-For", "X-Real-IP")


class ChangeRefusedError(PricefeeddError):
    """Somebody may not change what he wants to.

    Attributes:
        code: For programs: `authentication_failed` or `forbidden`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        """What it is in HTTP."""
        return 401 if self.code == "authentication_failed" else 403


def check_may_change(daemon: Daemon) -> None:
    """Refuse the present request if it is a change by somebody who may not.

    Raises:
        ChangeRefusedError: The key is missing, unknown, or not an administrator's; or no keys are configured, and this
            is not surely a program of this machine.
    """
    keys, key = daemon.config.web.keys, presented(request.headers, request.args)
    if key is None and not keys:
        why = not_ours(daemon)
        if why is not None:
            raise ChangeRefusedError("forbidden", why)
        return
    if key is None:
        raise ChangeRefusedError(
            "authentication_failed", "a key is needed: X-API-Key, Authorization: Bearer, or ?api_key="
        )
    found = find_key(keys, key)
    if found is None:
        raise ChangeRefusedError("authentication_failed", "the key is not known here")
    if ADMIN not in found.scopes:
        raise ChangeRefusedError("forbidden", f"the key {found.name!r} lacks the scope {ADMIN!r}")


def not_ours(daemon: Daemon) -> str | None:
    """Return why the present request need not come from a program of this machine; None if it does."""
    origin, allowed = request.headers.get("Origin"), daemon.config.web.allowed_origins
    if origin is not None and origin.rstrip("/").lower() not in {
        each.rstrip("/").lower() for each in allowed
    }:
        return "no page in a browser may change anything without a key; configure [[web.keys]]"
    client = request.scope.get("client")
    if any(name in request.headers for name in _FORWARDED) or (client and not _loopback(client[0])):
        return "without [[web.keys]] changes are taken from this machine only; configure a key with the scope admin"
    return None


def _loopback(host: str) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
