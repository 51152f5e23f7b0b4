"""Asking a running daemon over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from pricefeedd.errors import PricefeeddError, ServiceAwayError

ANSWER_S = 10.0


class RefusedError(PricefeeddError):
    """A running daemon will not do what it was asked.

    Attributes:
        body: Its answer.
    """

    def __init__(self, message: str, body: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.body = body


def ask(method: str, url: str, path: str, *, api_key: str | None = None, **params: str) -> Any:
    """Return what a running daemon answers, parsed.

    Raises:
        ServiceAwayError: None answers there.
        RefusedError: It refuses, and why.
    """
    headers = {"X-API-Key": api_key} if api_key else {}
    try:
        answer = httpx.request(
            method,
            f"{url.rstrip('/')}{path}",
            params=params,
            headers=headers,
            timeout=ANSWER_S,
            trust_env=False,
        )
        body = answer.json()
    except httpx.HTTPError as e:
        raise ServiceAwayError(f"no daemon answers at {url} ({e}); is it running? --url says where") from e
    except ValueError as e:
        raise ServiceAwayError(f"what answers at {url} is no pricefeedd") from e
    if answer.status_code >= 400:
        raise RefusedError(f"{url}: {body.get('error', answer.reason_phrase)}", body)
    return body


def reload_preview(url: str, api_key: str | None) -> tuple[list[str], list[str]]:
    """Return what a reload would change in a running daemon, and what only its next start would."""
    found = ask("POST", url, "/api/v1/reload", api_key=api_key, dry_run="true")
    return found["changes"], found["waiting"]
