"""Plugins: what is loaded, what is broken and why, and that a broken one harms no other."""

from __future__ import annotations

import importlib.metadata
import runpy
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import orjson
import pytest

from pricefeedd.config import load
from pricefeedd.errors import ConfigError, PluginError
from pricefeedd.events import BookSnapshot, Trade
from pricefeedd.hookspecs import Command, Elector, Sink, hookimpl
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.loader import Plugins, Status, load_plugins
from pricefeedd.rest import HttpReply
from pricefeedd.source import Source
from pricefeedd.testing.laws import codec_laws
from pricefeedd.venue import Feed, Venue

if TYPE_CHECKING:
    from decimal import Decimal

THIRDPARTY = Path(__file__).parents[1] / "data" / "thirdparty"
VARIANTS = runpy.run_path(str(THIRDPARTY / "variants.py"))


@attrs.frozen
class Installed:
    """A distribution, as far as the loader asks."""

    name: str
    version: str = "1.0"


@attrs.frozen
class Entry:
    """An entry point that gives an object, or fails."""

    name: str
    plugin: Any
    dist: Installed | None = None
    value: str = "some_package"

    def load(self) -> Any:
        if isinstance(self.plugin, BaseException):
            raise self.plugin
        return self.plugin


def plugin(**hooks: Callable[[], Any]) -> types.ModuleType:
    """Return a module with these hooks."""
    module = types.ModuleType("some_package")
    for name, hook in hooks.items():
        setattr(module, name, hookimpl(hook))
    return module


async def run(settings: Any, lanes: Any) -> None:
    """Do nothing."""


def venue(name: str, **changes: Any) -> Venue:
    nothing: Any = object()
    given = {
        "channels": {"spot": frozenset({"trade"})},
        "endpoints": {"ws": "wss://x.test"},
        "feeds": (Feed(name="spot", market="spot", endpoint="ws"),),
        "rules": {"spot": None},
        "api_version": 1,
    }
    return Venue(name=name, title=name.title(), codec=nothing, rest=nothing, **{**given, **changes})


def bringing(*venues: Venue) -> types.ModuleType:
    return plugin(pricefeedd_venues=lambda: list(venues))


def reason(plugins: Plugins, name: str) -> str:
    [record] = [record for record in plugins.records if record.name == name]
    assert record.status is Status.BROKEN
    return record.reason


@pytest.fixture
def thirdparty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Plugins]]:
    """Return a function that loads variants of the third-party plugin as if they were installed."""
    before = set(sys.modules)

    def load_variants(*names: str) -> Plugins:
        entries = []
        for name in names:
            monkeypatch.syspath_prepend(VARIANTS["make"](name, tmp_path))
            package = f"pricefeedd_{name}"
            entries.append(importlib.metadata.EntryPoint(name, package, "pricefeedd"))
        return load_plugins(entries)

    yield load_variants
    for module in set(sys.modules) - before:
        if module.startswith("pricefeedd_acme"):
            del sys.modules[module]


# --- what is loaded ---------------------------------------------------------------------------------------


def test_the_plugins_that_are_installed_are_found() -> None:
    plugins = load_plugins()

    [binance] = [record for record in plugins.records if record.name == "binance"]
    assert binance.status is Status.LOADED
    assert (binance.distribution, binance.package) == ("pricefeedd-binance", "pricefeedd_binance")
    assert binance.version
    assert binance.provides == ("venue binance",)
    assert plugins.require("venue", "binance") is plugins.venues["binance"]
    assert "binance" in plugins.fakes


def test_each_kind_of_plugin_is_loaded() -> None:
    sink = Sink(name="queue", api_version=1, run=run)
    source = Source(name="other", api_version=1, run=run)
    elector = Elector(name="lease", api_version=1, run=run)
    command = Command(name="do-it", api_version=1, help="Do it.", load=lambda: 1 / 0)
    plugins = load_plugins(
        [
            Entry(
                "many",
                plugin(
                    pricefeedd_venues=lambda: (venue("a"), venue("b")),
                    pricefeedd_sinks=lambda: [sink],
                    pricefeedd_sources=lambda: [source],
                    pricefeedd_electors=lambda: [elector],
                    pricefeedd_commands=lambda: [command],
                ),
                Installed("pricefeedd-many", "2.1"),
            )
        ]
    )

    [record] = plugins.records
    assert (record.status, record.version) == (Status.LOADED, "2.1")
    brings = ("venue a", "venue b", "sink queue", "source other", "elector lease", "command do-it")
    assert record.provides == brings
    assert plugins.require("source", "other") is source
    assert plugins.require("sink", "queue") is sink
    assert plugins.require("elector", "lease") is elector
    assert plugins.commands == {"do-it": command}, "and not yet loaded"


def test_fakes_are_asked_for_late_and_one_that_fails_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    def fakes() -> Mapping[str, Callable[..., Any]]:
        asked.append(1)
        return {"a": dict}

    def failing() -> Mapping[str, Callable[..., Any]]:
        raise ImportError("no simulator here")

    plugins = load_plugins(
        [
            Entry("a", plugin(pricefeedd_venues=lambda: [venue("a")], pricefeedd_fakes=fakes)),
            Entry("b", plugin(pricefeedd_venues=lambda: [venue("b")], pricefeedd_fakes=failing)),
        ]
    )

    assert not asked
    assert plugins.fakes == {"a": dict}
    assert len(plugins.fakes) == len(asked) == 1
    assert caplog.records[0].__dict__["plugin"] == "b"


def test_a_disabled_plugin_is_not_even_imported() -> None:
    plugins = load_plugins([Entry("a", RuntimeError("imported"))], disabled={"a"})

    assert plugins.records[0].status is Status.DISABLED
    with pytest.raises(PluginError, match="disabled"):
        plugins.require("venue", "a")


# --- what is broken ---------------------------------------------------------------------------------------

GOOD = Entry("good", bringing(venue("good")))


def _raises() -> Sequence[Venue]:
    raise RuntimeError("no licence file")


def _none() -> Sequence[Venue]:
    return []


def _exits() -> Sequence[Venue]:
    raise SystemExit(3)


@attrs.frozen
class TypesMissing:
    """Settings whose types exist for the type checker only."""

    price: Decimal


@attrs.frozen
class KeysOfOurs:
    session: int = 1


class NotAttrs:
    """Settings of the wrong kind."""


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (
            ModuleNotFoundError("No module named 'acme_client'"),
            "cannot be imported (ModuleNotFoundError: No module",
        ),
        (SystemExit("bye"), "cannot be imported (SystemExit: bye)"),
        (SyntaxError("bad"), "cannot be imported (SyntaxError: bad)"),
        (types.ModuleType("empty"), "implements no hook; mark its functions with @hookimpl"),
        (plugin(pricefeedd_venuse=_none), "a hook that does not exist"),
        (plugin(pricefeedd_venues=_raises), "pricefeedd_venues() failed (RuntimeError: no licence file)"),
        (plugin(pricefeedd_venues=_exits), "pricefeedd_venues() failed (SystemExit: 3)"),
        (plugin(pricefeedd_venues=lambda: venue("x")), "pricefeedd_venues() failed (TypeError"),
        (plugin(pricefeedd_venues=lambda: ["x"]), "pricefeedd_venues() returned a str; expected Venues"),
        (
            plugin(pricefeedd_sinks=lambda: [venue("x")]),
            "pricefeedd_sinks() returned a Venue; expected Sinks",
        ),
        (
            bringing(venue("x", api_version=99)),
            "written for plugin API 99, this pricefeedd speaks 1; install a matching release",
        ),
        (bringing(venue("x"), venue("x")), "brings the venue x twice"),
        (bringing(venue("x", settings=NotAttrs)), "is not an attrs class"),
        (bringing(venue("x", settings=TypesMissing)), "import its types for real, not under TYPE_CHECKING"),
        (bringing(venue("x", settings=KeysOfOurs)), "the key 'session' is pricefeedd's own; choose another"),
        (bringing(venue("x", channels={"spott": frozenset()})), "'spott' is no market"),
        (bringing(venue("x", channels={"spot": frozenset({"trades"})})), "'trades' is no channel"),
        (bringing(venue("x", rules={})), "market 'spot' has no rules"),
        (bringing(venue("x", endpoints={})), "feed 'spot' dials endpoint 'ws', which has no URL"),
        (
            bringing(venue("x", feeds=(Feed(name="f", market="linear", endpoint="ws"),))),
            "feed 'f' speaks market 'linear'",
        ),
        (
            bringing(venue("x", feeds=(Feed(name="f", market="spot", endpoint="ws"),) * 2)),
            "two feeds are named 'f'",
        ),
        (bringing(venue("x", environments={"testnet": {"wss": "wss://t.test"}})), "has the endpoint 'wss'"),
    ],
)
def test_a_broken_plugin_is_reported_and_harms_no_other(broken: Any, why: str) -> None:
    plugins = load_plugins([Entry("broken", broken, Installed("pricefeedd-broken")), GOOD])

    assert why in reason(plugins, "broken")
    assert list(plugins.venues) == ["good"]
    with pytest.raises(PluginError) as caught:
        plugins.require("venue", "broken")
    assert str(caught.value).startswith("plugin 'broken' (some_package): ")


def test_the_user_may_interrupt_a_plugin() -> None:
    with pytest.raises(KeyboardInterrupt):
        load_plugins([Entry("slow", KeyboardInterrupt())])


def test_a_name_belongs_to_the_plugin_that_is_called_so() -> None:
    plugins = load_plugins(
        [
            Entry("acme", bringing(venue("acme"), venue("binance")), Installed("pricefeedd-acme")),
            Entry("binance", bringing(venue("binance")), Installed("pricefeedd-binance")),
        ]
    )

    assert reason(plugins, "acme") == (
        "brings the venue binance, as plugin 'binance' (pricefeedd-binance) does; uninstall one of them"
    )
    assert list(plugins.venues) == ["binance"]
    assert "binance" not in plugins.broken


def test_two_distributions_with_one_name_are_told_apart() -> None:
    plugins = load_plugins(
        [
            Entry("kraken", bringing(venue("kraken")), Installed("zz-kraken")),
            Entry("kraken", bringing(venue("kraken")), Installed("aa-kraken")),
        ]
    )

    assert [(r.distribution, r.status) for r in plugins.records] == [
        ("aa-kraken", Status.LOADED),
        ("zz-kraken", Status.BROKEN),
    ]
    assert plugins.require("venue", "kraken") is plugins.venues["kraken"]


def test_a_plugin_that_nobody_has_can_be_installed() -> None:
    with pytest.raises(PluginError, match="no plugin brings the sink 'zmq'; pip install pricefeedd-zmq"):
        load_plugins([]).require("sink", "zmq")


# --- the plugin of somebody else ----------------------------------------------------------------------------


def test_a_third_party_plugin_is_loaded(thirdparty: Callable[..., Plugins]) -> None:
    plugins = thirdparty("acme")

    assert [(r.name, r.status, r.provides) for r in plugins.records] == [
        ("acme", Status.LOADED, ("venue acme",))
    ]


def test_broken_variants_of_it_are_contained(thirdparty: Callable[..., Plugins]) -> None:
    good = load_plugins().venues["binance"]
    plugins = thirdparty("acme", *VARIANTS["NAMES"])

    assert "No module named 'acme_client_that_is_not_there'" in reason(plugins, "acmeimport")
    assert "written for plugin API 99" in reason(plugins, "acmeversion")
    assert "RuntimeError: no licence file" in reason(plugins, "acmeraises")
    # Alone with the name it is taken; beside the owner of the name it is not.
    assert set(plugins.venues) == {"acme", "binance"}
    clash = Entry("acmeclash", bringing(plugins.venues["binance"]))
    both = load_plugins([clash, Entry("binance", bringing(good))])
    assert "brings the venue binance" in reason(both, "acmeclash")
    assert both.venues["binance"] is good


def test_its_settings_are_checked_like_ours(thirdparty: Callable[..., Plugins], tmp_path: Path) -> None:
    plugins = thirdparty("acme")
    path = tmp_path / "pricefeedd.toml"

    def read(text: str) -> Any:
        path.write_text(text)
        return load(path, venues=plugins.venues, sinks={}, electors={}, environ={}).venues["acme"]

    with pytest.raises(ConfigError) as caught:
        read("[venues.acme]\nbook_levels = 'many'\nbook_level = 5\nregions = 'eu'\n")
    assert [problem.partition("toml:")[2] for problem in caught.value.problems] == [
        "2: venues.acme.book_levels: expected int, found str 'many'",
        "3: venues.acme: unknown key 'book_level', did you mean 'book_levels'?",
        "4: venues.acme.regions: expected an array, found str 'eu'; write ['eu']",
    ]
    config = read("[venues.acme]\nbook_levels = 7\n")
    acme = plugins.venues["acme"]
    assert acme.configure(acme, config.settings).rules["spot"].book.depth == 7  # type: ignore[union-attr]  # it has books


def test_it_reads_its_list_of_instruments(thirdparty: Callable[..., Plugins]) -> None:
    acme = thirdparty("acme").venues["acme"]
    row = {
        "symbol": "BTC_USDT",
        "base": "BTC",
        "quote": "USDT",
        "tick": "0.01",
        "lot": "0.001",
        "state": "open",
    }
    reply = HttpReply(status=200, body=orjson.dumps({"instruments": [row]}), received_ns=1)

    [instrument] = acme.rest.instruments("spot").parse(reply).items

    assert (instrument.name, instrument.symbol, instrument.tradable) == ("BTC-USDT", "BTC_USDT", True)


# --- and its codec obeys the laws -------------------------------------------------------------------------

BTC = Instrument(
    venue="acme", market="spot", name="BTC-USDT", symbol="BTC_USDT", kind=Kind.SPOT, base="BTC", quote="USDT"
)
FRAMES = (
    b"ping",
    b"pong",
    b'{"event":"subscribed","channel":"trades:BTC_USDT"}',
    b'{"event":"error","channel":"book:BTC_USDT","message":"no such channel"}',
    b'{"channel":"trades:BTC_USDT","data":[{"id":7,"px":"61000.10","qty":"0.250","side":"buy","ts":1790000000123}]}',
    b'{"channel":"book:BTC_USDT","kind":"snapshot","seq":10,"bids":[["61000.00","1.5"]],"asks":[["61000.10","2"]],'
    b'"ts":1790000000123}',
    b'{"channel":"book:BTC_USDT","kind":"update","prev":10,"seq":11,"bids":[["61000.00","0"]],"asks":[],'
    b'"ts":1790000000124}',
)


def _acme() -> Venue:
    sys.path.insert(0, str(THIRDPARTY))
    try:
        return load_plugins([importlib.metadata.EntryPoint("acme", "pricefeedd_acme", "pricefeedd")]).venues[
            "acme"
        ]
    finally:
        sys.path.remove(str(THIRDPARTY))
        for module in [name for name in sys.modules if name.startswith("pricefeedd_acme")]:
            del sys.modules[module]


ACME = _acme()
TestAcmeLaws = codec_laws(ACME, frames={"public": FRAMES}, instruments=[BTC], examples=50)


def test_its_frames_say_what_it_documents() -> None:
    feed = ACME.feed("public")
    said = [
        ACME.codec.decode(frame, feed=feed, names={"BTC_USDT": "BTC-USDT"}, received_ns=1) for frame in FRAMES
    ]

    [trade] = said[4]
    assert isinstance(trade, Trade)
    assert (trade.id, trade.price, trade.size, trade.aggressor) == ("7", "61000.10", "0.250", "buy")
    assert trade.venue_time_ns == 1_790_000_000_123_000_000
    [book] = said[5]
    assert isinstance(book, BookSnapshot)
    assert book.sequence == 10
    assert said[1] == ()
