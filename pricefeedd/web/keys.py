"""Who may read: keys, and the origins of browsers."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

from pricefeedd.web.daemon import Key

READ = "read"
ADMIN = "admin"


class Named(Protocol):
    """Headers or query arguments."""

    def get(self, name: str, /) -> str | None: ...


def presented(headers: Named, query: Named) -> str | None:
    """Return the key that a request carries: X-API-Key, Authorization: Bearer, or ?api_key=; None without."""
    if given := headers.get("X-API-Key"):
        return given
    scheme, _, token = (headers.get("Authorization") or "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return query.get("api_key")


def find_key(keys: Sequence[Key], given: str) -> Key | None:
    """Return the key that was given; None if it is none of ours. Takes equally long for any key."""
    wanted = hashlib.sha256(given.encode("utf-8", "surrogatepass")).digest()
    found = None
    for key in keys:
        if hmac.compare_digest(hashlib.sha256(key.key.encode()).digest(), wanted):
            found = key
    return found


def denial(keys: Sequence[Key], given: str | None, *, scope: str, public: bool) -> str | None:
    """Return why a request is refused; None if it is not.

    A wrong key is refused even where none is needed, so that its owner notices.

    Args:
        scope: What a key must have.
        public: Whether no key is needed.
    """
    if given is None:
        return None if public else "a key is needed: X-API-Key, Authorization: Bearer, or ?api_key="
    key = find_key(keys, given)
    if key is None:
        return "the key is not known here"
    if not public and scope not in key.scopes:
        return f"the key {key.name!r} lacks the scope {scope!r}"
    return None


def scopes(keys: Sequence[Key], given: str | None) -> frozenset[str]:
    """Return what the bearer of a key may do; nothing without one."""
    key = None if given is None else find_key(keys, given)
    return frozenset() if key is None else frozenset(key.scopes)


def origin_allowed(origin: str | None, host: str | None, allowed: Sequence[str]) -> bool:
    """Return whether a page of that origin may read us.

    Programs send no Origin and are let in; browsers always send one with a WebSocket handshake (RFC 6455
    section 10.2). Without a list the page must come from the host that it talks to.

    Args:
        allowed: Origins such as `https://app.example.test`; `*` is any.
    """
    if origin is None:
        return True
    if not allowed:
        try:
            return host is not None and urlsplit(origin).netloc.lower() == host.lower()
        except ValueError:
            return False
    folded = {entry.rstrip("/").lower() for entry in allowed}
    return "*" in folded or origin.lower() in folded
