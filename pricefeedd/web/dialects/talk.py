"""What the dialects of older systems have in common: JSON objects in, `error` out, and patience."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import orjson
import trio

from pricefeedd.topic import Pattern
from pricefeedd.web.dialect import Talk
from pricefeedd.web.fields import BadRequest, described, read_object
from pricefeedd.web.goodbye import Goodbye

_T = TypeVar("_T")

#: Similar names that are looked for in one request: each costs milliseconds.
SUGGESTIONS = 5

#: Items of a request that are worked on before others may.
TURN = 50

#: How often a client's request that waits for a venue's list is tried again.
_LOOK_S = 0.1


def parting(goodbye: Goodbye) -> dict[str, object]:
    """Return the last words: these clients do not know `bye`."""
    return {"type": "error", "message": goodbye.reason}


def did_you_mean(near: Sequence[str]) -> str:
    """Return the rest of a sentence that names what is similar; nothing if nothing is."""
    return f"; did you mean {' or '.join(near)}?" if near else ""


def read_known(made: type[_T], message: Mapping[str, Any]) -> _T:
    """Return the request that an object makes. Keys that we do not know are passed over: the old servers did so.

    Raises:
        BadRequest: A key is missing or wrong.
    """
    return read_object(made, {name: message[name] for name in described(made) if name in message})


class OldTalk(Talk):
    """The requests of a client of an older system."""

    @abstractmethod
    async def obey(self, message: dict[str, Any]) -> None:
        """Do what is asked, and answer.

        Raises:
            BadRequest: It cannot be done; nothing was answered so far.
        """

    async def carry_out(self, text: str) -> None:
        """Do what a JSON object asks."""
        self.afford(1.0)
        await self.obey(_object(text))

    def refuse(self, error: BadRequest) -> None:
        """Say `error`."""
        self.error(error.message + did_you_mean(error.did_you_mean))

    def error(self, message: str, about: Mapping[str, object] | None = None) -> None:
        """Say what is wrong, and about what."""
        self.reader.reply({"type": "error", "message": message, **(about or {})})

    def begin(self, pattern: Pattern) -> str | None:
        """Read a topic if it is served, or can be on demand; return why not. `introduce` has to follow."""
        held = self.reader.patterns
        if pattern.text not in held and len(held) >= self.limits.subscriptions:
            return f"a client may hold {self.limits.subscriptions} subscriptions; end some"
        done = self.reader.subscribe(pattern)
        if done.matched or done.on_demand:
            return None
        self.reader.unsubscribe(pattern)
        return "it is not served here: it is neither configured nor offered on demand"

    async def listed(self, loading: Callable[[], bool]) -> None:
        """Wait while a list of instruments is on its way, for so long as is seemly.

        An old client that comes back right after a restart asks once, and would believe a no for ever.
        """
        with trio.move_on_after(self.limits.listing_s):
            while loading():  # noqa: ASYNC110  # the directory has no event for it, and few ever wait
                await trio.sleep(_LOOK_S)


def _object(text: str) -> dict[str, Any]:
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError as e:
        raise BadRequest("bad_json", f"not JSON: {e}") from e
    if not isinstance(message, dict):
        raise BadRequest("bad_request", "a request is a JSON object")
    return message


@attrs.frozen(kw_only=True)
class Items:
    """A list whose items are read one by one: a wrong one does not spoil the others.

    Attributes:
        expected: What to tell a client that gave something else.
        item: JSON Schema of an item.
        example: A list that makes sense.
    """

    expected: str
    item: dict[str, Any]
    example: list[Any]

    @property
    def schema(self) -> dict[str, Any]:
        """A list with at least one."""
        return {"type": "array", "items": self.item, "minItems": 1, "examples": [self.example]}

    def read(self, value: Any) -> tuple[Any, ...]:
        """Take a list that is not empty, whatever is in it."""
        if not isinstance(value, list) or not value:
            raise ValueError
        return tuple(value)

    def read_text(self, texts: object) -> Any:
        """Refuse: no parameter of a URL holds this."""
        raise ValueError
