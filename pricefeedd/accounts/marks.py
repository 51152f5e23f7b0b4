"""Up to when an account was seen: a small file that outlives a restart."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import structlog

from pricefeedd.accounts.lines import Held

log = structlog.get_logger("pricefeedd.accounts")

#: Most orders, positions or coins of a channel that are written down; a venue allows some hundreds of open orders.
MOST_HELD = 10_000


class Marks:
    """Up to when each channel of an account is known to be whole, by the venue's clock, and what there was then.

    Attributes:
        until_ns: By channel; a channel that is not there was never seen.
        held: By channel, what there was that may have ended since then.
    """

    def __init__(self, path: Path | None) -> None:
        """Read what there is.

        Args:
            path: The file; None to remember nothing.
        """
        self.until_ns: dict[str, int] = {}
        self.held: dict[str, list[Held]] = {}
        self._path = path
        self._written = b""
        if path is not None:
            with contextlib.suppress(FileNotFoundError):
                self._read(path)

    def _read(self, path: Path) -> None:
        try:
            told: Any = orjson.loads(path.read_bytes())
            self.until_ns = {str(channel): int(us) * 1000 for channel, us in told["until_us"].items()}
            self.held = {
                str(channel): [
                    Held(market=str(m), symbol=str(s), id=str(id_), told_ns=0) for m, s, id_ in rows
                ]
                for channel, rows in told["held"].items()
            }
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            self.until_ns, self.held = {}, {}
            log.warning(
                "cannot read up to when an account was seen; what was missed since then is not fetched",
                file=str(path),
                reason=repr(e),
            )

    def text(self, until_ns: Mapping[str, int], held: Mapping[str, Iterable[Held]]) -> bytes:
        """Return what the file should hold."""
        rows = {
            channel: [(one.market, one.symbol, one.id) for one in list(mine)[-MOST_HELD:]]
            for channel, mine in held.items()
        }
        until_us = {channel: ns // 1000 for channel, ns in until_ns.items()}
        return orjson.dumps({"until_us": until_us, "held": rows}, option=orjson.OPT_INDENT_2)

    def write(self, text: bytes) -> None:
        """Replace the file as a whole, unless it says just that; whoever is killed meanwhile finds the old one.

        Raises:
            OSError: It cannot be written.
        """
        if self._path is None or text == self._written:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".new")
        with draft.open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        self._written = text
