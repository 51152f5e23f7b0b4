"""Parsed TOML to settings classes, exactly: no guessing, and every mistake told, not only the first.

cattrs left alone reads "false" as True and "BTC" as three symbols. Here a value has the declared type or is a
problem, an unknown key is a problem, and each problem knows its place.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.errors import StructureHandlerNotFoundError

from pricefeedd.config import secret
from pricefeedd.config.overrides import Given
from pricefeedd.config.toml_place import KeyPath

T = TypeVar("T")


@attrs.frozen
class Problem:
    """One mistake.

    Attributes:
        path: The key that it is about, as shown.
        text: What is wrong and what to do.
        value: What was found there, to be shown after the text; left out where it may be secret.
        key: The key below `path` whose line is meant, where that one is not shown.
    """

    path: KeyPath
    text: str
    value: str = attrs.field(default="", repr=False)
    key: str | None = None


class StructureError(ValueError):
    """A value that does not fit its settings class.

    Attributes:
        problems: All mistakes in it.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.text for problem in self.problems))

    def under(self, *keys: str | int) -> list[Problem]:
        """Return the problems as seen from further up."""
        return [attrs.evolve(problem, path=(*keys, *problem.path)) for problem in self.problems]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about a word that is not known: the nearest ones, or all if they are few.

    >>> did_you_mean("prot", ["host", "port"])
    ", did you mean 'port'?"
    >>> did_you_mean("banana", ["host", "port"])
    '; known: host, port'
    """
    words = sorted(set(known))
    near = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    if near:
        return f", did you mean {near[0]!r}?"
    if 0 < len(words) <= 16:
        return f"; known: {', '.join(words)}"
    return ""


def unknown_key(key: str, known: Iterable[str]) -> Problem:
    """Return the problem of a key that no settings class has."""
    return Problem((), f"unknown key {key!r}{did_you_mean(key, known)}", key=key)


def mismatch(expected: str, value: Any, hint: str = "") -> StructureError:
    """Return the error of a value of the wrong type; the value is shown unless its field hides it."""
    if type(value) is dict:
        return StructureError([Problem((), f"expected {expected}, found a table{hint}")])
    if type(value) is list:
        return StructureError([Problem((), f"expected {expected}, found an array{hint}")])
    shown = repr(value)
    shown = f" {shown if len(shown) <= 60 else shown[:57] + '...'}{hint}"
    return StructureError([Problem((), f"expected {expected}, found {type(value).__name__}", shown)])


class Strict:
    """Structures parsed TOML, given the environment that secrets may point to."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        converter = self._converter = Converter(forbid_extra_keys=True)
        hooks: Mapping[type, Callable[[Any, type], Any]] = {
            str: self._text,
            int: self._whole,
            float: self._number,
            bool: self._truth,
            Path: lambda value, _: Path(self._text(value, str)),
        }
        for kind, hook in hooks.items():
            converter.register_structure_hook(kind, partial(self._not_enum, hook))
        converter.register_structure_hook_factory(attrs.has, self._class_hook)
        converter.register_structure_hook_factory(_is_array, self._array_hook)
        converter.register_structure_hook_factory(_is_mapping, self._mapping_hook)
        converter.register_structure_hook_factory(_is_choice, self._choice_hook)

    def structure(self, value: Any, kind: type[T]) -> T:
        """Return the value as an instance of a settings class.

        Raises:
            StructureError: It does not fit, with all the reasons.
        """
        try:
            return self._converter.structure(value, kind)
        except StructureHandlerNotFoundError as e:
            raise StructureError(
                [Problem((), f"the settings class has a type that TOML cannot give: {e}")]
            ) from e

    def fields(
        self, kind: type, table: Mapping[str, Any], names: Iterable[str] | None = None
    ) -> tuple[dict[str, Any], list[Problem]]:
        """Return the fields of a settings class that a table gives well, and the problems with the others.

        Args:
            names: The fields to read; by default all. Keys of the table that are no fields are not looked at.
        """
        attrs.resolve_types(kind)
        declared = {a.alias or a.name: a for a in attrs.fields(kind) if a.init}
        good: dict[str, Any] = {}
        problems: list[Problem] = []
        for name in declared if names is None else names:
            attribute = declared[name]
            if name not in table:
                if attribute.default is attrs.NOTHING:
                    problems.append(Problem((), f"missing key {name!r}"))
                continue
            try:
                good[name] = self._field(attribute, table[name])
            except StructureError as e:
                hidden = not attribute.repr
                problems += [attrs.evolve(p, value="") if hidden else p for p in e.under(name)]
            except (ValueError, TypeError) as e:
                problems.append(Problem((name,), _said(e, attribute)))
        invalid = _validate(kind, declared, good)
        for problem in invalid:
            good.pop(str(problem.path[0]), None)
        return good, problems + invalid

    def _field(self, attribute: attrs.Attribute[Any], value: Any) -> Any:
        # A secret from the environment, as `PRICEFEEDD__...`, does not stand in the file either.
        if attribute.metadata.get("secret") and not secret.is_reference(_plain(value)):
            if not isinstance(value, Given):
                raise StructureError(
                    [
                        Problem(
                            (),
                            "a secret does not stand in the file; "
                            'write { env = "NAME" }, { file = "/path" } or { credential = "name" }',
                        )
                    ]
                )
            return value.raw
        assert attribute.type is not None, "settings are annotated"
        if attribute.type is Any:
            return _plain(value)
        return self.structure(value, attribute.type)

    def _not_enum(self, hook: Callable[[Any, type], Any], value: Any, kind: Any) -> Any:
        # A hook for a class serves its subclasses as well, and a StrEnum is a str.
        return self._choice_hook(kind)(value, kind) if _is_choice(kind) else hook(value, kind)

    # --- hooks: a value and the type it should have -------------------------------------------------------

    def _text(self, value: Any, _: type) -> str:
        if isinstance(value, Given) and type(value.value) is not str and not secret.is_reference(value.value):
            return value.raw
        value = _plain(value)
        if type(value) is str:
            return value
        if secret.is_reference(value):
            try:
                return secret.resolve(value, self._environ)
            except ValueError as e:
                raise StructureError([Problem((), str(e))]) from e
        raise mismatch("str", value)

    def _whole(self, value: Any, _: type) -> int:
        value = _plain(value)
        if type(value) is int:
            return value
        raise mismatch("int", value, _unquote(value))

    def _number(self, value: Any, _: type) -> float:
        value = _plain(value)
        if type(value) in (int, float):
            return float(value)
        raise mismatch("float", value, _unquote(value))

    def _truth(self, value: Any, _: type) -> bool:
        value = _plain(value)
        if type(value) is bool:
            return value
        raise mismatch("bool", value, "; write true or false, without quotes")

    def _class_hook(self, kind: Any) -> Callable[[Any, Any], Any]:
        def structure(value: Any, _: Any) -> Any:
            value = _plain(value)
            if type(value) is not dict:
                raise mismatch("a table", value)
            good, problems = self.fields(kind, value)
            known = [a.alias or a.name for a in attrs.fields(kind) if a.init]
            problems[:0] = [unknown_key(key, known) for key in value if key not in known]
            if not problems:
                try:
                    return kind(**good)
                except (ValueError, TypeError) as e:
                    problems = [Problem((), str(e))]
            raise StructureError(problems)

        return structure

    def _array_hook(self, kind: Any) -> Callable[[Any, Any], Any]:
        item_type = get_args(kind)[0]
        made = get_origin(kind)
        made = made if made in (list, set, frozenset) else tuple

        def structure(value: Any, _: Any) -> Any:
            value = _plain(value)
            if type(value) is not list:
                raise mismatch("an array", value, f"; write [{value!r}]" if type(value) is str else "")
            items: list[Any] = []
            problems: list[Problem] = []
            for index, item in enumerate(value):
                try:
                    items.append(self.structure(item, item_type))
                except StructureError as e:
                    problems += e.under(index)
            if problems:
                raise StructureError(problems)
            return made(items)

        return structure

    def _mapping_hook(self, kind: Any) -> Callable[[Any, Any], Any]:
        item_type = get_args(kind)[1]

        def structure(value: Any, _: Any) -> dict[str, Any]:
            value = _plain(value)
            if type(value) is not dict:
                raise mismatch("a table", value)
            items: dict[str, Any] = {}
            problems: list[Problem] = []
            for key, item in value.items():
                try:
                    items[key] = self.structure(item, item_type)
                except StructureError as e:
                    problems += e.under(key)
            if problems:
                raise StructureError(problems)
            return items

        return structure

    def _choice_hook(self, kind: Any) -> Callable[[Any, Any], Any]:
        if isinstance(kind, type) and issubclass(kind, Enum):
            choices = {member.value: member for member in kind}
        else:
            choices = {word: word for word in get_args(kind)}

        def structure(value: Any, _: Any) -> Any:
            value = _plain(value)
            for choice, member in choices.items():
                if type(value) is type(choice) and value == choice:
                    return member
            words = [str(choice) for choice in choices]
            raise StructureError([Problem((), f"expected one of {', '.join(words)}, found", f" {value!r}")])

        return structure


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Given) else value


def _unquote(value: Any) -> str:
    return "; leave out the quotes" if type(value) is str and value.strip("+-").isdecimal() else ""


def _is_array(kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        return len(arguments) == 2 and arguments[1] is Ellipsis
    return origin in (list, set, frozenset, Sequence)


def _is_mapping(kind: Any) -> bool:
    return get_origin(kind) in (dict, Mapping)


def _is_choice(kind: Any) -> bool:
    return get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, Enum))


def _said(error: Exception, attribute: attrs.Attribute[Any]) -> str:
    # A validator's own words may hold the value.
    return str(error) if attribute.repr else f"not valid ({type(error).__name__}; the value is not shown)"


def _validate(
    kind: type, declared: Mapping[str, attrs.Attribute[Any]], good: Mapping[str, Any]
) -> list[Problem]:
    """Run the validators of the fields that are well typed, so that one bad field does not hide another."""
    problems = []
    instance: Any = object.__new__(kind)
    for attribute in declared.values():
        # A validator may look at another field, given or not.
        if attribute.default is not attrs.NOTHING and not isinstance(attribute.default, attrs.Factory):  # type: ignore[arg-type]  # a class, whatever its stub says
            object.__setattr__(instance, attribute.name, attribute.default)
    for name, value in good.items():
        object.__setattr__(instance, declared[name].name, value)
    for name, value in good.items():
        attribute = declared[name]
        # A converter may change the value before it is validated: those wait for the real construction.
        if attribute.validator is None or attribute.converter is not None:
            continue
        try:
            attribute.validator(instance, attribute, value)
        except StructureError as e:
            hidden = not attribute.repr
            problems += [attrs.evolve(p, value="") if hidden else p for p in e.under(name)]
        except AttributeError:
            continue  # it looks at another field, which is a problem already
        except (ValueError, TypeError) as e:
            problems.append(Problem((name,), _said(e, attribute)))
    return problems
