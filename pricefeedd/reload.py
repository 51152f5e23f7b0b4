"""Reading the configuration again while everything runs: a bad file changes nothing, a good one what differs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import attrs
import structlog
import trio

from pricefeedd import logs, notify
from pricefeedd.config import Config
from pricefeedd.config.delta import Delta, delta
from pricefeedd.errors import ConfigError, PluginError, PricefeeddError
from pricefeedd.loader import Plugins
from pricefeedd.term import Workplace

log = structlog.get_logger("pricefeedd.reload")

#: So many may wait for a reload; more wait for their turn to ask.
WISHES = 16

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


@attrs.define(eq=False)
class _Wish:
    """A reload that somebody waits for."""

    done: trio.Event = attrs.field(factory=trio.Event)
    found: Delta | None = None
    refusal: ReloadRefusedError | None = None


class Reloader:
    """Reloads, one at a time.

    Attributes:
        count: Reloads that were carried out.
        failed: Those that were refused.
    """

    def __init__(
        self,
        place: Workplace,
        follow: Callable[[Delta], Awaitable[None]],
        reread: Reread | None,
        *,
        renew: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to reload.

        Args:
            follow: Does what a difference asks for; the configuration of the workplace is the new one by then.
            renew: Reads other files again, such as certificates, whether the configuration differs or not. It raises
                OSError, and changes nothing, if they cannot be used.
        """
        self.count = 0
        self.failed = 0
        self._place = place
        self._follow = follow
        self._reread = reread
        self._renew = renew
        self._wishes, self._asked = trio.open_memory_channel[_Wish](WISHES)
        self._last_ns: int | None = None
        self._error = ""

    async def look(self) -> Delta:
        """Return what a reload would change.

        Raises:
            ReloadRefusedError: The configuration cannot be used.
        """
        return (await self._read())[0]

    async def reload(self) -> Delta:
        """Change what differs, and return it. Once begun it is carried through, whether the caller waits or not.

        Raises:
            ReloadRefusedError: The configuration cannot be used; nothing has changed.
        """
        wish = _Wish()
        await self._wishes.send(wish)
        await wish.done.wait()
        if wish.refusal is not None:
            raise wish.refusal
        assert wish.found is not None, "it was carried out"
        return wish.found

    async def run(self) -> None:
        """Carry reloads out, one after the other, until cancelled.

        What fails in the midst of one ends the daemon: it is started again, with the new configuration.
        """
        async for wish in self._asked:
            notify.reloading()
            try:
                wish.found, plugins = await self._read()
                await self._carry_out(wish.found, plugins)
            except ReloadRefusedError as e:
                wish.refusal = e
                self.failed += 1
                self._error = str(e)
                log.error("reload refused", problems=e.problems)  # noqa: TRY400  # the problems are what matters
            self._last_ns = time.time_ns()
            notify.ready()
            wish.done.set()

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
        try:
            self._renew()
        except OSError as e:
            raise ReloadRefusedError(f"web.tls: {e}; the certificate in use is kept", [str(e)]) from e
        old = self._place.config
        self._place.config, self._place.plugins = found.config, plugins
        logging = found.config.logging
        if old.logging.format != logging.format:
            logs.configure(logging.level, logging.format, repeat_s=logging.repeat_s)
        elif old.logging != logging:
            logs.set_level(logging.level)
        if found.lines:
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
