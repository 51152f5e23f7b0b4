"""Keys and origins, from literals."""

from __future__ import annotations

import attrs
import pytest

from pricefeedd.web.keys import denial, find_key, origin_allowed, presented


@attrs.frozen
class Key:
    name: str
    key: str
    scopes: tuple[str, ...] = ("read",)


KEYS = (Key("a", "one"), Key("b", "two", ("admin",)))


@pytest.mark.parametrize(
    ("headers", "query", "given"),
    [
        ({}, {}, None),
        ({"X-API-Key": "k"}, {"api_key": "other"}, "k"),
        ({"Authorization": "Bearer k"}, {}, "k"),
        ({"Authorization": "bearer  k "}, {}, "k"),
        ({"Authorization": "Basic k"}, {}, None),
        ({"Authorization": "Bearer "}, {}, None),
        ({}, {"api_key": "k"}, "k"),
    ],
)
def test_where_a_key_may_stand(headers: dict[str, str], query: dict[str, str], given: str | None) -> None:
    assert presented(headers, query) == given


def test_a_key_is_found_only_whole() -> None:
    assert find_key(KEYS, "two") is KEYS[1]
    for wrong in ("", "on", "onee", "ONE", "ключ", "\udcff"):
        assert find_key(KEYS, wrong) is None


@pytest.mark.parametrize(
    ("given", "scope", "public", "allowed"),
    [
        (None, "read", True, True),
        (None, "read", False, False),
        ("one", "read", False, True),
        ("one", "admin", False, False),
        ("two", "read", False, False),
        ("two", "admin", False, True),
        ("wrong", "read", True, False),
        ("two", "read", True, True),
    ],
)
def test_who_is_let_in(given: str | None, scope: str, public: bool, allowed: bool) -> None:
    why = denial(KEYS, given, scope=scope, public=public)
    assert (why is None) is allowed
    assert why is None or "one" not in why


@pytest.mark.parametrize(
    ("origin", "host", "listed", "allowed"),
    [
        (None, "h:1", (), True),
        ("http://h:1", "h:1", (), True),
        ("http://H:1", "h:1", (), True),
        ("http://h:2", "h:1", (), False),
        ("http://evil.test", "h:1", (), False),
        ("null", "h:1", (), False),
        ("http://h:1", None, (), False),
        ("http://[", "h:1", (), False),
        ("https://a.test", "h:1", ("https://a.test/",), True),
        ("http://a.test", "h:1", ("https://a.test",), False),
        ("http://h:1", "h:1", ("https://a.test",), False),
        ("https://any.test", "h:1", ("*",), True),
    ],
)
def test_origins(origin: str | None, host: str | None, listed: tuple[str, ...], allowed: bool) -> None:
    assert origin_allowed(origin, host, listed) is allowed
