"""Reading the configuration again while everything runs: a bad file changes nothing, a good one what differs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog
import trio

from pricefeedd import logs, notify
from pricefeedd.config import Config
from pricefeedd.config.delta import Delta, delta
from pricefeedd.errors import ConfigError, PluginError, PricefeeddError
from pricefeedd.loader import Plugins
from pricefeedd.term import Workplace

log = structlog.get_logger("pricefeedd.reload")

#: Reads the file and the environment, and looks what is installed now.
Reread = Callable[[], tuple[Config, Plugins]]


class ReloadRefusedError(PricefeeddError):
    """The configuration cannot be used, or there is no file to read; nothing has changed.

    Attributes:
        problems: Each mistake with its place.
    """

    def __init__(self, message: str, problems: list[str]) -> None:
        super().__init__(message)
        self.problems = problems


class Reloader:
    """Reloads, one at a time.

    Attributes:
        count: Reloads that were carried out.
        failed: Those that were refused.
    """

    def __init__(
        self, place: Workplace, follow: Callable[[Delta], Awaitable[None]], reread: Reread | None
    ) -> None:
        """Prepare to reload.

        Args:
            follow: Does what a difference asks for; the configuration of the workplace is the new one by then.
        """
        self.count = 0
        self.failed = 0
        self._place = place
        self._follow = follow
        self._reread = reread
        self._lock = trio.Lock()
        self._last_ns: int | None = None
        self._error = ""

    async def look(self) -> Delta:
        """Return what a reload would change.

        Raises:
            ReloadRefusedError: The configuration cannot be used.
        """
        return (await self._read())[0]

    async def reload(self) -> Delta:
        """Change what differs, and return it.

        Raises:
            ReloadRefusedError: The configuration cannot be used; nothing has changed.
        """
        async with self._lock:
            notify.reloading()
            try:
                found, plugins = await self._read()
                await self._carry_out(found, plugins)
            except ReloadRefusedError as e:
                self.failed += 1
                self._error = str(e)
                log.error("reload refused", problems=e.problems)  # noqa: TRY400  # the problems are what matters
                raise
            finally:
                self._last_ns = time.time_ns()
                notify.ready()
            return found

    async def _read(self) -> tuple[Delta, Plugins]:
        if self._reread is None:
            raise ReloadRefusedError("there is no file to read again: this daemon was not begun from one", [])
        try:
            config, plugins = await trio.to_thread.run_sync(self._reread)
        except (ConfigError, PluginError) as e:
            problems = list(e.problems) if isinstance(e, ConfigError) else [str(e)]
            raise ReloadRefusedError(str(e), problems) from e
        return delta(self._place.config, config), plugins

    async def _carry_out(self, found: Delta, plugins: Plugins) -> None:
        old = self._place.config
        self._place.config, self._place.plugins = found.config, plugins
        if old.logging != found.config.logging:
            logs.configure(found.config.logging.level, found.config.logging.format)
        if found.lines:
            # What is half done cannot be left so: the daemon's end alone cancels it.
            await self._follow(found)
        self.count += 1
        self._error = ""
        log.info("reloaded", changes=list(found.lines), waiting_for_restart=list(found.waiting))

    async def on_signal(self) -> None:
        """Reload because SIGHUP asks for it; what is wrong is in the log."""
        with suppress(ReloadRefusedError):  # logged where it was found
            await self.reload()

    def describe(self) -> dict[str, Any]:
        """Return facts for `/status` and `/metrics`."""
        return {
            "count": self.count,
            "failed": self.failed,
            "last": self._last_ns,
            "last_ok": not self._error,
            "error": self._error,
        }
