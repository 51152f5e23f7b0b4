"""Tasks by name in one nursery, of which each can be ended without the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio


@attrs.frozen(eq=False)
class _Task:
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    over: trio.Event = attrs.field(factory=trio.Event)


async def first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Wait until the first of them returns; the others are cancelled."""
    async with trio.open_nursery() as nursery:

        async def wait(for_: Callable[[], Awaitable[object]]) -> None:
            await for_()
            nursery.cancel_scope.cancel()

        for each in waits:
            nursery.start_soon(wait, each)


class Roster:
    """Who is at work."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._tasks: dict[str, _Task] = {}
        self._closed = False

    def close(self) -> None:
        """Begin no task any more: the nursery ends."""
        self._closed = True

    def begin(self, name: str, run: Callable[[], Awaitable[object]]) -> None:
        """Begin a task, unless this is closed. Its failure ends the nursery."""
        if self._closed:
            return
        assert name not in self._tasks, f"{name} is at work"
        task = self._tasks[name] = _Task()
        self._nursery.start_soon(self._run, name, task, run, name=name)

    async def _run(self, name: str, task: _Task, run: Callable[[], Awaitable[object]]) -> None:
        try:
            with task.scope:
                await run()
        finally:
            if self._tasks.get(name) is task:
                del self._tasks[name]
            task.over.set()

    async def end(self, name: str, *, within_s: float = 0.0) -> None:
        """End a task, and wait until it is over; one that is not at work is over.

        Args:
            within_s: It was asked to end by itself, and has so long for it.
        """
        task = self._tasks.get(name)
        if task is not None:
            task.scope.deadline = min(task.scope.deadline, trio.current_time() + within_s)
            await task.over.wait()
