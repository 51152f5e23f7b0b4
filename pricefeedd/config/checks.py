"""Checks of single settings, as attrs validators: each says what is wrong and what to write instead."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pricefeedd.config.strict import Problem, StructureError, did_you_mean

Validator = Callable[[Any, Any, Any], None]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_FD = re.compile(r"[0-9]+|[A-Za-z][A-Za-z0-9_.@-]*")


def between(low: float, high: float | None = None) -> Validator:
    """Return a validator of numbers that takes both ends."""

    def check(_: Any, __: Any, value: float) -> None:
        if not value >= low or (high is not None and not value <= high):
            bounds = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
            raise ValueError(f"expected {bounds}, found {value:g}")

    return check


def positive(_: Any, __: Any, value: float) -> None:
    """Require a number above zero."""
    if not 0 < value < float("inf"):
        raise ValueError(f"expected more than 0, found {value:g}")


def one_of(*words: str) -> Validator:
    """Return a validator of one word."""

    def check(_: Any, __: Any, value: str) -> None:
        if value not in words:
            raise ValueError(f"unknown word {value!r}{did_you_mean(value, words)}")

    return check


def each(check: Callable[[str], None]) -> Validator:
    """Return a validator that checks every item of an array, and tells the bad ones by position."""

    def check_all(_: Any, __: Any, values: Sequence[str]) -> None:
        problems = []
        for index, value in enumerate(values):
            try:
                check(value)
            except ValueError as e:
                problems.append(Problem((index,), str(e)))
        if problems:
            raise StructureError(problems)

    return check_all


def not_empty(_: Any, __: Any, value: Sequence[Any]) -> None:
    """Require at least one item, or one character."""
    if not value:
        raise ValueError("expected at least one, found none")


def name(_: Any, __: Any, value: str) -> None:
    """Require a name of letters, digits, `-` and `_`."""
    if not _NAME.fullmatch(value):
        raise ValueError(f"a name is letters, digits, - and _, and begins with no sign; found {value!r}")


def listen_address(value: str) -> None:
    """Check one address to listen on.

    Raises:
        ValueError: It is none of `host:port`, `[v6]:port`, `unix:/path`, `fd://N` and `fd://NAME`.
    """
    forms = "expected host:port, unix:/path, fd://N or fd://NAME"
    if value.startswith("unix:"):
        if not value.removeprefix("unix:").startswith("/"):
            raise ValueError(f"{forms}; a socket's path begins with /, found {value!r}")
        return
    if value.startswith("fd://"):
        if not _FD.fullmatch(value.removeprefix("fd://")):
            raise ValueError(
                f"{forms}; N is a number such as 3, NAME a socket's FileDescriptorName=, found {value!r}"
            )
        return
    if "://" in value:
        raise ValueError(f"{forms}; leave out the scheme, found {value!r}")
    host, colon, port = value.rpartition(":")
    if not colon or not host:
        hint = f', such as "127.0.0.1:{value.lstrip(":")}"' if value.lstrip(":").isdecimal() else ""
        raise ValueError(f"{forms}{hint}; found {value!r}")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f'{forms}; write an IPv6 address in brackets, "[{host}]:{port}"')
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError(f"a port is a number from 0 to 65535; found {port!r}")


def origin(value: str) -> None:
    """Check one origin of browsers: `https://host` or `https://host:port`, or `*` for all.

    Raises:
        ValueError: It is not, and so no browser would ever send it.
    """
    if value == "*":
        return
    parts = _split(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f'expected an origin such as "https://app.example.com", found {value!r}')
    if parts.path or parts.query or parts.fragment:
        raise ValueError(f'an origin has no path; write "{parts.scheme}://{parts.netloc}"')


def endpoint(value: str) -> None:
    """Check the base URL of an endpoint.

    Raises:
        ValueError: It is no URL of `ws`, `wss`, `http` or `https`, or has a query.
    """
    parts = _split(value)
    if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname:
        raise ValueError(f"expected a URL of ws, wss, http or https, found {value!r}")
    if parts.query or parts.fragment:
        raise ValueError(f"a base URL has neither query nor fragment; found {value!r}")


def scope(value: str) -> None:
    """Check one scope of a key: `read`, `admin` or `account:NAME`.

    Raises:
        ValueError: It is none of them.
    """
    head, colon, account = value.partition(":")
    if value in ("read", "admin") or (head == "account" and _NAME.fullmatch(account)):
        return
    if head == "account" or colon:
        raise ValueError(f'expected "read", "admin" or "account:NAME", found {value!r}')
    raise ValueError(f"unknown scope {value!r}{did_you_mean(value, ('read', 'admin', 'account:NAME'))}")


def instrument(value: str) -> None:
    """Check the form of an instrument's name or symbol; whether it exists only the venue knows.

    Raises:
        ValueError: It is empty or has blanks.
    """
    if not value or any(sign.isspace() for sign in value):
        raise ValueError(f"expected a name such as BTC-USDT, or the venue's symbol; found {value!r}")


def topic(value: str) -> None:
    """Check the form of a topic or a pattern of topics.

    Raises:
        ValueError: It has not three parts.
    """
    parts = value.split(":", 2)
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"a topic is channel:venue:instrument, such as trade:*:BTC-USDT; found {value!r}")


def readable_file(_: Any, __: Any, value: str) -> None:
    """Require a file that is there."""
    if not Path(value).is_file():
        raise ValueError(f"no such file: {value}")


def private_file(_: Any, __: Any, value: str) -> None:
    """Require a file that is there and that not everybody may read."""
    readable_file(None, None, value)
    mode = Path(value).stat().st_mode & 0o777
    if mode & 0o004 and sys.platform != "win32":  # there it says nothing of who may read
        raise ValueError(f"everybody may read {value} (mode {mode:o}); chmod 600 the file")


def store_url(_: Any, __: Any, value: str) -> None:
    """Require the URL of a database that we can use; its text is not repeated, for it may hold a password."""
    scheme, separator, _rest = value.partition("://")
    known = ("sqlite", "postgresql", "postgresql+psycopg")
    if not separator or scheme not in known:
        hint = did_you_mean(scheme, known) if separator else ""
        raise StructureError(
            [Problem((), f"expected sqlite:///path or postgresql+psycopg://user@host/name{hint}")]
        )


def header_text(_: Any, __: Any, value: str) -> None:
    """Require text that fits into an HTTP header."""
    if not value:
        raise StructureError([Problem((), "a key cannot be empty")])
    if not all("!" <= sign <= "~" for sign in value):
        raise StructureError(
            [Problem((), "a key is sent in a header: use visible ASCII characters without blanks")]
        )


def _split(value: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        _ = parts.port  # reading it is what checks it
    except ValueError as e:
        raise ValueError(f"not a URL: {value!r} ({e})") from e
    return parts
