"""What a client may give, as data: the fields of a request, what each may hold, and why one is refused.

A request is an attrs class whose fields are made by `given`. The reader of requests and the generator of the
documents (`/asyncapi.json`, `/openapi.json`, `/docs`) go by the same description, so neither can lie about
the other.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

import attrs
import orjson

#: Key of a field's `Given` in its attrs metadata.
GIVEN: Final = "given"

#: Whole numbers up to here are exact in JavaScript.
SAFE_INTEGER: Final = 2**53 - 1

#: Stands for a field that may hold anything, None too, and was left out.
ABSENT: Final = object()

_T = TypeVar("_T")


@attrs.frozen
class BadRequest(Exception):  # noqa: N818  # named for what the client is told
    """A request that cannot be carried out.

    Attributes:
        code: For programs.
        message: For people: what is wrong, and what to do.
        did_you_mean: The nearest words that exist.
        where: The field that is at fault; None where it is the whole.
        id: The request's own id, as far as it could be read.
        op: What it asks, as far as it could be read.
    """

    code: str
    message: str
    did_you_mean: tuple[str, ...] = ()
    where: str | None = None
    id: int | str | None = None
    op: str | None = None


class Kind(Protocol):
    """What a field may hold."""

    @property
    def expected(self) -> str:
        """What to tell a client that gave something else."""
        ...

    @property
    def schema(self) -> dict[str, Any]:
        """The same as JSON Schema."""
        ...

    def read(self, value: Any) -> Any:
        """Return what a JSON value means.

        Raises:
            ValueError: It is not of this kind.
        """
        ...

    def read_text(self, texts: Sequence[str]) -> Any:
        """Return what the values of a parameter in a URL mean.

        Raises:
            ValueError: They are not of this kind.
        """
        ...


def _one(texts: Sequence[str]) -> str:
    if len(texts) != 1:
        raise ValueError("given more than once")
    return texts[0]


@attrs.frozen(kw_only=True)
class Flag:
    """True or false."""

    expected = "true or false"

    @property
    def schema(self) -> dict[str, Any]:
        """A boolean."""
        return {"type": "boolean"}

    def read(self, value: Any) -> bool:
        """Take a boolean and nothing that looks like one."""
        if type(value) is not bool:
            raise ValueError
        return value

    def read_text(self, texts: Sequence[str]) -> bool:
        """Take `true` or `false`, in any case: Python's own text is `True`."""
        return {"true": True, "false": False}[_known(_one(texts).lower(), ("true", "false"))]


@attrs.frozen(kw_only=True)
class Whole:
    """A whole number within bounds."""

    least: int = 0
    most: int = SAFE_INTEGER

    @property
    def expected(self) -> str:
        """The bounds."""
        return f"a whole number from {self.least} to {self.most}"

    @property
    def schema(self) -> dict[str, Any]:
        """An integer with its bounds."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}

    def read(self, value: Any) -> int:
        """Take an integer within the bounds; true and 1.0 are none."""
        if type(value) is not int or not self.least <= value <= self.most:
            raise ValueError
        return value

    def read_text(self, texts: Sequence[str]) -> int:
        """Take plain digits."""
        text = _one(texts)
        if not (text.isascii() and text.isdigit() and len(text) <= 16):
            raise ValueError
        return self.read(int(text))


@attrs.frozen(kw_only=True)
class Text:
    """Some text."""

    shortest: int = 1
    longest: int = 200
    expected: str = attrs.field(
        default=attrs.Factory(
            lambda self: f"a text of {self.shortest} to {self.longest} characters", takes_self=True
        )
    )

    @property
    def schema(self) -> dict[str, Any]:
        """A string with its bounds."""
        return {"type": "string", "minLength": self.shortest, "maxLength": self.longest}

    def read(self, value: Any) -> str:
        """Take a text within the bounds."""
        if not isinstance(value, str) or not self.shortest <= len(value) <= self.longest:
            raise ValueError
        return value

    def read_text(self, texts: Sequence[str]) -> str:
        """Take a text within the bounds."""
        return self.read(_one(texts))


@attrs.frozen
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:
        """The words."""
        return f"one of {', '.join(self.words)}"

    @property
    def schema(self) -> dict[str, Any]:
        """An enumeration."""
        return {"type": "string", "enum": list(self.words)}

    def read(self, value: Any) -> str:
        """Take one of the words."""
        return _known(value, self.words)

    def read_text(self, texts: Sequence[str]) -> str:
        """Take one of the words."""
        return self.read(_one(texts))


def _known(value: Any, words: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in words:
        raise ValueError
    return value


@attrs.frozen(kw_only=True)
class Topics:
    """A list of topics or patterns; in a URL parted by commas, or the parameter repeated.

    What each means is found later, one by one: a wrong topic does not spoil the others.
    """

    expected = "a list of texts such as trade:binance:BTC-USDT"

    @property
    def schema(self) -> dict[str, Any]:
        """A list of texts with at least one."""
        example = ["trade:binance:BTC-USDT", "quote:*:BTC-USDT"]
        return {"type": "array", "items": {"type": "string"}, "minItems": 1, "examples": [example]}

    def read(self, value: Any) -> tuple[str, ...]:
        """Take a list of texts that is not empty."""
        if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
            raise ValueError
        return tuple(value)

    def read_text(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Take what stands between the commas."""
        return self.read([part for text in texts for part in text.split(",") if part])


@attrs.frozen(kw_only=True)
class Identifier:
    """A client's own mark for a request, which the answer bears."""

    longest: int = 200
    expected = "a number or a short text"

    @property
    def schema(self) -> dict[str, Any]:
        """An integer or a string."""
        return {"type": ["integer", "string"], "maxLength": self.longest}

    def read(self, value: Any) -> int | str:
        """Take a whole number or a short text."""
        if type(value) not in (int, str) or len(str(value)) > self.longest:
            raise ValueError
        return value  # type: ignore[no-any-return]  # it is one of the two

    def read_text(self, texts: Sequence[str]) -> str:
        """Take a short text."""
        return str(self.read(_one(texts)))


@attrs.frozen(kw_only=True)
class Anything:
    """Any JSON."""

    expected = "any JSON"

    @property
    def schema(self) -> dict[str, Any]:
        """No bounds."""
        return {}

    def read(self, value: Any) -> Any:
        """Take it as it is."""
        return value

    def read_text(self, texts: Sequence[str]) -> str:
        """Take it as it is."""
        return _one(texts)


@attrs.frozen(kw_only=True)
class Numbers:
    """Whole numbers by name."""

    expected = 'an object of whole numbers such as {"trade:binance:BTC-USDT": 41}'

    @property
    def schema(self) -> dict[str, Any]:
        """An object of integers."""
        return {"type": "object", "additionalProperties": Whole().schema}

    def read(self, value: Any) -> Mapping[str, int]:
        """Take an object of integers."""
        if not isinstance(value, dict) or not all(
            type(number) is int and 0 <= number <= SAFE_INTEGER for number in value.values()
        ):
            raise ValueError
        return value

    def read_text(self, texts: Sequence[str]) -> Any:
        """Refuse: no parameter of a URL holds this."""
        raise ValueError


def _mapping(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise ValueError
    return value


@attrs.frozen
class Nested:
    """An object with fields of its own."""

    made: type[Any]

    @property
    def expected(self) -> str:
        """The fields."""
        return f"an object with {' and '.join(field.name for field in attrs.fields(self.made))}"

    @property
    def schema(self) -> dict[str, Any]:
        """The object's own schema."""
        return object_schema(self.made)

    def read(self, value: Any) -> Any:
        """Take the object.

        Raises:
            BadRequest: One of its fields is wrong.
        """
        return read_object(self.made, _mapping(value))

    def read_text(self, texts: Sequence[str]) -> Any:
        """Refuse: no parameter of a URL holds this."""
        raise ValueError


@attrs.frozen(kw_only=True)
class Given:
    """What there is to know of a field.

    Attributes:
        kind: What it may hold.
        about: For people.
        example: One value that makes sense; None for none.
        name: What clients call it, where Python reserves that word; "" for the attribute's own name.
    """

    kind: Kind
    about: str
    example: object = None
    name: str = ""


#: A key in the URL; whether it opens anything is found elsewhere.
API_KEY: Final = Text(shortest=0, longest=65_536)


def given(
    kind: Kind, about: str, *, default: object = attrs.NOTHING, example: object = None, name: str = ""
) -> Any:
    """Return an attrs field that a client gives; None as default means that it may be left out or null."""
    told = Given(kind=kind, about=about, example=example, name=name)
    return attrs.field(default=default, metadata={GIVEN: told})


def described(made: type[Any]) -> dict[str, tuple[Given, attrs.Attribute[Any]]]:
    """Return the fields of a class that clients give, by what they call them."""
    return {
        field.metadata[GIVEN].name or field.name: (field.metadata[GIVEN], field)
        for field in attrs.fields(made)
    }


def about(made: type[Any], name: str) -> str:
    """Return what is said of a field, to be said again elsewhere."""
    return described(made)[name][0].about


def object_schema(made: type[Any], *, nullable: bool = True) -> dict[str, Any]:
    """Return the JSON Schema of a class of fields.

    Args:
        nullable: See `field_schema`.
    """
    properties, required = {}, []
    for name, (told, field) in described(made).items():
        properties[name] = field_schema(told, field, nullable=nullable)
        if field.default is attrs.NOTHING:
            required.append(name)
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | ({"required": required} if required else {})


def field_schema(told: Given, field: attrs.Attribute[Any], *, nullable: bool = True) -> dict[str, Any]:
    """Return the JSON Schema of one field, with its text and default.

    Args:
        nullable: Whether null may stand for a field left out; there is no null in a URL.
    """
    schema = {"description": told.about, **told.kind.schema}
    if field.default is None and nullable and "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        schema["type"] = [*kinds, "null"]
    elif field.default not in (attrs.NOTHING, None, ABSENT):
        schema["default"] = field.default
    if told.example is not None:
        schema["examples"] = [told.example]
    return schema


def read_object(made: type[_T], values: Mapping[str, Any]) -> _T:
    """Return the request that a JSON object makes.

    Raises:
        BadRequest: A field is unknown, missing or wrong.
    """
    fields = described(made)
    refuse_unknown(values, fields, what="key")
    found = {}
    for name, (told, field) in fields.items():
        value = values.get(name, ABSENT)
        if value is ABSENT or (value is None and field.default is None):
            _refuse_missing(name, told, field)
            continue
        try:
            found[field.name] = told.kind.read(value)
        except ValueError as e:
            raise BadRequest("bad_request", _wrong(name, told, value), where=name) from e
        except BadRequest as e:
            where = f"{name}.{e.where}" if e.where else name
            inner = (
                f"{name}.{e.message}" if e.where and e.message.startswith(e.where) else f"{name}: {e.message}"
            )
            raise BadRequest(e.code, inner, e.did_you_mean, where) from e
    return made(**found)


def read_query(made: type[_T], values: Mapping[str, Sequence[str]]) -> _T:
    """Return the request that the parameters of a URL make.

    Args:
        values: The texts of each parameter in their order.

    Raises:
        BadRequest: A parameter is unknown, missing or wrong.
    """
    fields = described(made)
    refuse_unknown(values, fields, what="parameter")
    found = {}
    for name, (told, field) in fields.items():
        texts = values.get(name)
        if texts is None:
            _refuse_missing(name, told, field)
            continue
        try:
            found[field.name] = told.kind.read_text(texts)
        except ValueError as e:
            value = texts[0] if len(texts) == 1 else list(texts)
            near: tuple[str, ...] = ()
            if isinstance(told.kind, Choice):
                near = tuple(difflib.get_close_matches(texts[0][:40], told.kind.words))
            raise BadRequest("bad_request", _wrong(name, told, value), near, name) from e
    return made(**found)


def refuse_unknown(values: Iterable[str], known: Iterable[str], *, what: str) -> None:
    """Refuse a name that means nothing here, and say which one may have been meant.

    Raises:
        BadRequest: There is one.
    """
    names = list(known)
    for name in values:
        if name not in names:
            near = tuple(difflib.get_close_matches(name[:40], names))
            listed = f"known: {', '.join(names)}" if names else "there are none"
            raise BadRequest("bad_request", f"unknown {what} {name[:40]!r}; {listed}", near, name[:40])


def _refuse_missing(name: str, told: Given, field: attrs.Attribute[Any]) -> None:
    if field.default is attrs.NOTHING:
        raise BadRequest("bad_request", f"{name}: expected {told.kind.expected}", where=name)


def _wrong(name: str, told: Given, value: object) -> str:
    shown = orjson.dumps(value).decode() if value is None or type(value) is bool else repr(value)
    return f"{name}: expected {told.kind.expected}, found {shown[:60]}"
