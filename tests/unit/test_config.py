"""The configuration as an operator meets it: what is read, and what is said of mistakes."""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricefeedd.config import (
    AccountConfig,
    Config,
    KeyConfig,
    LeaderConfig,
    LoggingConfig,
    MetricsConfig,
    SessionConfig,
    SinkConfig,
    SourceConfig,
    StoreConfig,
    SubscribeConfig,
    TlsConfig,
    VenueConfig,
    WebConfig,
    build,
    diff,
    find_file,
    load,
    state_dir,
    toml_place,
)
from pricefeedd.errors import ConfigError
from pricefeedd.hookspecs import Elector, Lanes, Leadership, Sink
from pricefeedd.loader import load_plugins
from pricefeedd.rest import Rest
from pricefeedd.rules import Rules
from pricefeedd.source import Source
from pricefeedd.venue import Feed, Venue

EXAMPLE = Path(__file__).parents[2] / "pricefeedd.toml.example"


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen(kw_only=True)
class ExampleSettings:
    """What a plugin of somebody else may want."""

    depth: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    speed: Literal["100ms", "1s"] = "1s"
    colour: Colour = Colour.RED
    licence: str = attrs.field(default="", repr=False, validator=attrs.validators.max_len(20))
    weights: Mapping[str, float] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class QueueSettings:
    url: str = attrs.field(repr=False)
    lossy: bool = True


class _Nothing:
    """Codec and REST of a venue whose declaration alone is looked at."""


def example_venue(**changes: Any) -> Venue:
    nothing: Any = _Nothing()
    rest: Rest = nothing
    venue = Venue(
        name="example",
        api_version=1,
        title="Example",
        codec=nothing,
        rest=rest,
        channels={"spot": frozenset({"trade", "quote", "candle_1m"}), "linear": frozenset({"book"})},
        endpoints={"spot_ws": "wss://example.test", "spot_rest": "https://example.test"},
        environments={"testnet": {"spot_ws": "wss://test.example.test"}},
        feeds=(
            Feed(name="spot", market="spot", endpoint="spot_ws"),
            Feed(name="private", market="", endpoint="spot_ws", private=True),
        ),
        rules={"spot": Rules(), "linear": Rules()},
        market_names={"usdm": "linear"},
        settings=ExampleSettings,
    )
    return attrs.evolve(venue, **changes)


async def _run_sink(settings: Any, lanes: Lanes) -> None:
    """Take nothing."""


async def _run_elector(settings: Any, leadership: Leadership) -> None:
    """Elect nobody."""


VENUES = {"example": example_venue(), "public": example_venue(name="public", title="Public", feeds=())}
SINKS = {"queue": Sink(name="queue", api_version=1, settings=QueueSettings, run=_run_sink)}
SOURCES = {"other": Source(name="other", api_version=1, settings=QueueSettings, run=_run_sink)}
ELECTORS = {"lease": Elector(name="lease", api_version=1, settings=ExampleSettings, run=_run_elector)}


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """Return a function that loads a text as the file `pricefeedd.toml`."""

    def read(text: str, environ: Mapping[str, str] | None = None, **more: Any) -> Config:
        path = tmp_path / "pricefeedd.toml"
        path.write_text(text)
        brought = {"venues": VENUES, "sinks": SINKS, "electors": ELECTORS, "sources": SOURCES}
        return load(path, environ=environ or {}, **brought, **more)

    return read


@pytest.fixture
def problems(read: Any, tmp_path: Path) -> Any:
    """Return a function that loads a text and returns the problems, with the file's folder cut off."""

    def problems(text: str, environ: Mapping[str, str] | None = None, **more: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            read(text, environ, **more)
        assert caught.value.source == str(tmp_path / "pricefeedd.toml")
        return [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems]

    return problems


# --- what is read -----------------------------------------------------------------------------------------


def test_an_empty_file_is_all_defaults(read: Any) -> None:
    assert read("") == Config()
    assert Config().web.listen == ("127.0.0.1:8765",)
    assert Config().store is None


def test_a_full_file_is_read(read: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    config = read(
        f"""
        [web]
        listen = ["127.0.0.1:80", "unix:/run/feed.sock", "fd://3", "[::1]:8765"]
        allowed_origins = ["https://app.example.com", "*"]
        heartbeat_s = 10
        [[web.keys]]
        name = "ops"
        key = {{ env = "OPS_KEY" }}
        scopes = ["read", "account:main", "admin"]
        [venues.example]
        depth = 20
        colour = "blue"
        weights = {{ a = 1, b = 0.5 }}
        licence = {{ env = "LICENCE" }}
        [[venues.example.subscribe]]
        market = "usdm"
        instruments = ["BTC-USDT", "BTC-USDT", "1000SATSUSDT"]
        channels = ["book"]
        [venues.example.endpoints]
        spot_ws = "ws://127.0.0.1:9001"
        [venues.example.session]
        stale_after_s = 12
        [venues.example.accounts.main]
        environment = "testnet"
        api_key = {{ file = "{secret}" }}
        api_secret = {{ credential = "secret" }}
        channels = ["order", "balance"]
        [venues.other]
        plugin = "public"
        [store]
        [sinks.queue]
        url = {{ env = "QUEUE_URL" }}
        [leader]
        elector = "lease"
        [leader.lease]
        speed = "100ms"
        [metrics]
        compat = true
        """,
        {
            "OPS_KEY": "k",
            "LICENCE": "L",
            "QUEUE_URL": "amqp://u:p@mq",
            "CREDENTIALS_DIRECTORY": str(tmp_path),
            "STATE_DIRECTORY": "/var/lib/pricefeedd:/var/lib/more",
        },
    )

    assert config.web.listen[1] == "unix:/run/feed.sock"
    assert config.web.heartbeat_s == 10.0
    assert config.web.keys == (KeyConfig(name="ops", key="k", scopes=("read", "account:main", "admin")),)
    example = config.venues["example"]
    assert example == VenueConfig(
        name="example",
        plugin="example",
        subscribe=(
            SubscribeConfig(market="linear", instruments=("BTC-USDT", "1000SATSUSDT"), channels=("book",)),
        ),
        endpoints={"spot_ws": "ws://127.0.0.1:9001"},
        session=SessionConfig(stale_after_s=12.0),
        accounts={
            "main": AccountConfig(
                environment="testnet", api_key="s3cret", api_secret="s3cret", channels=("order", "balance")
            )
        },
        settings=ExampleSettings(depth=20, colour=Colour.BLUE, weights={"a": 1.0, "b": 0.5}, licence="L"),
    )
    assert config.venues["other"].plugin == "public"
    assert config.venues["other"].settings == ExampleSettings()
    assert config.store is not None
    assert config.store.url == "sqlite:////var/lib/pricefeedd/pricefeedd.db"
    assert config.sinks == {
        "queue": SinkConfig(name="queue", plugin="queue", settings=QueueSettings(url="amqp://u:p@mq"))
    }
    assert config.leader.settings == ExampleSettings(speed="100ms")
    assert config.metrics.compat


def test_secrets_are_in_no_repr(read: Any) -> None:
    config = read(
        """
        [[web.keys]]
        name = "ops"
        key = { env = "S" }
        [venues.example]
        licence = { env = "S" }
        [venues.example.accounts.main]
        api_key = { env = "S" }
        api_secret = { env = "S" }
        passphrase = { env = "S" }
        channels = ["order"]
        [sinks.queue]
        url = { env = "S" }
        [store]
        url = "postgresql://user:hush@host/db"
        """,
        {"S": "hush"},
    )

    assert config.venues["example"].accounts["main"].passphrase == "hush"
    assert "hush" not in repr(config)


def test_candles_that_are_built_here_may_be_asked_for(read: Any) -> None:
    config = read(
        """
        [[venues.example.subscribe]]
        market = "spot"
        instruments = ["BTC-USDT"]
        channels = ["candle_1m", "candle_5m", "candle_1d"]
        """
    )

    assert config.venues["example"].subscribe[0].channels == ("candle_1m", "candle_5m", "candle_1d")


def test_on_demand_needs_no_instruments(read: Any) -> None:
    entry = '[[venues.example.subscribe]]\nmarket = "spot"\nchannels = ["trade"]\non_demand = true\n'

    assert read(entry).venues["example"].subscribe[0].on_demand


@pytest.mark.parametrize("dialect", ["native", "pyth", "ohlcv"])
def test_each_dialect_is_taken(read: Any, dialect: str) -> None:
    assert read(f'web.root_dialect = "{dialect}"').web.root_dialect == dialect


def test_loading_takes_milliseconds(read: Any) -> None:
    text = EXAMPLE.read_text().replace("venues.binance", "venues.example").replace("binance", "example")
    text = text.replace(', "book"]', "]")
    read(text)
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        read(text)
        times.append(time.perf_counter() - begun)

    # The best of ten: others use this machine as well.
    assert min(times) < 0.010


# --- mistakes ---------------------------------------------------------------------------------------------


def test_all_mistakes_are_told_at_once_with_line_path_and_a_way_out(problems: Any) -> None:
    text = """\
[web]
listen = ["127.0.0.1:8765", "8766"]
max_clients = "9"
compresion = true
[[venues.example.subscribe]]
market = "spott"
instruments = ["BTC-USDT"]
channels = ["trade"]
[[venues.example.subscribe]]
market = "spot"
instruments = "BTC-USDT"
channels = [
    "trade",
    "qoute",
]
[venues.example.endpoints]
spot_wss = "wss://x.test"
[venues.example.session]
stale_after_s = 0
[loging]
"""

    assert problems(text) == [
        "pricefeedd.toml:2: web.listen[1]: expected host:port, unix:/path, fd://N or fd://NAME, "
        "such as \"127.0.0.1:8766\"; found '8766'",
        "pricefeedd.toml:3: web.max_clients: expected int, found str '9'; leave out the quotes",
        "pricefeedd.toml:4: web: unknown key 'compresion', did you mean 'compression'?",
        "pricefeedd.toml:6: venues.example.subscribe[0].market: "
        "Example has no market 'spott', did you mean 'spot'?",
        "pricefeedd.toml:11: venues.example.subscribe[1].instruments: expected an array, "
        "found str 'BTC-USDT'; write ['BTC-USDT']",
        "pricefeedd.toml:14: venues.example.subscribe[1].channels[1]: "
        "there is no channel 'qoute', did you mean 'quote'?",
        "pricefeedd.toml:17: venues.example.endpoints.spot_wss: "
        "Example has no endpoint 'spot_wss', did you mean 'spot_ws'?",
        "pricefeedd.toml:19: venues.example.session.stale_after_s: expected more than 0, found 0",
        "pricefeedd.toml:20: unknown key 'loging', did you mean 'logging'?",
    ]


SUBSCRIBE = '[[venues.example.subscribe]]\nmarket = "spot"\n'
ACCOUNT = (
    '[venues.example.accounts.main]\napi_key = { env = "A" }\napi_secret = { env = "A" }\n'
    'channels = ["order"]\n'
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "web.public_read = 'false'",
            "web.public_read: expected bool, found str 'false'; write true or false",
        ),
        ("web.public_read = 1", "web.public_read: expected bool, found int 1"),
        ("web.max_clients = 1.0", "web.max_clients: expected int, found float 1.0"),
        ("web.max_clients = true", "web.max_clients: expected int, found bool True"),
        ("web.max_clients = 0", "web.max_clients: expected at least 1, found 0"),
        ("web.heartbeat_s = nan", "web.heartbeat_s: expected more than 0"),
        ("web.heartbeat_s = inf", "web.heartbeat_s: expected more than 0"),
        ("web = 1", "web: expected a table, found int 1"),
        ("web.listen = []", "web.listen: expected at least one"),
        ("web.listen = ['localhost']", "found 'localhost'"),
        ("web.listen = ['127.0.0.1:70000']", "a port is a number from 0 to 65535; found '70000'"),
        ("web.listen = ['http://127.0.0.1:80']", "leave out the scheme"),
        ("web.listen = ['unix:run/x']", "a socket's path begins with /"),
        ("web.listen = ['fd://th ree']", "N is a number"),
        ("web.listen = ['::1:8765']", 'write an IPv6 address in brackets, "[::1]:8765"'),
        (
            "web.admin_listen = ['127.0.0.1:8765']",
            "web.admin_listen: '127.0.0.1:8765' stands in listen as well",
        ),
        ("web.root_dialect = 'pith'", "web.root_dialect: unknown word 'pith', did you mean 'pyth'?"),
        ("web.allowed_origins = ['app.test']", 'expected an origin such as "https://app.example.com"'),
        ("web.allowed_origins = ['https://app.test/x']", 'an origin has no path; write "https://app.test"'),
        (
            "web.tls = { certfile = '/no/cert', keyfile = '/no/key' }",
            "web.tls.certfile: no such file: /no/cert",
        ),
        ("web.tls = {}", "web.tls: missing key 'certfile'"),
        ("[[web.keys]]\nname = 'ops'", "web.keys[0]: missing key 'key'"),
        ("[[web.keys]]\nname='a b'\nkey={env='A'}", "web.keys[0].name: a name is letters"),
        (
            "[[web.keys]]\nname='a'\nkey={env='A'}\nscopes=['acount:x']",
            'expected "read", "admin" or "account:NAME"',
        ),
        (
            "[[web.keys]]\nname='a'\nkey={env='A'}\nscopes=['raed']",
            "unknown scope 'raed', did you mean 'read'?",
        ),
        (
            "[[web.keys]]\nname='a'\nkey={env='A'}\n[[web.keys]]\nname='a'\nkey={env='B'}",
            "web.keys: two keys are named 'a'",
        ),
        (
            "[[web.keys]]\nname='a'\nkey={env='A'}\n[[web.keys]]\nname='b'\nkey={env='A'}",
            "web.keys: the key named 'b' is the secret of another one",
        ),
        (SUBSCRIBE + "channels = ['trade']", "venues.example.subscribe[0]: names no instruments"),
        (SUBSCRIBE + "instruments = ['A-B']", "venues.example.subscribe[0]: missing key 'channels'"),
        (SUBSCRIBE + "instruments = ['A-B']\nchannels = []", "channels: expected at least one"),
        (
            SUBSCRIBE + "instruments = ['A B']\nchannels = ['trade']",
            "instruments[0]: expected a name such as",
        ),
        (SUBSCRIBE + "instruments = ['A-B']\nchannels = ['book']", "Example spot has no channel 'book'"),
        (SUBSCRIBE + "instruments = ['A-B']\nchannels = ['order']", "'order' belongs to an account"),
        ("[venues.example]\nsubscribe = {}", "venues.example.subscribe: expected an array, found a table"),
        ("[venues.example.endpoints]\nspot_ws = 'example.test'", "expected a URL of ws, wss, http or https"),
        ("[venues.example.endpoints]\nspot_ws = 'ws://x:99999'", "not a URL"),
        ("[venues.example.session]\nbreaker_open_s = 301", "expected between 0 and 300, found 301"),
        ("[venues.example]\ndepth = 'many'", "venues.example.depth: expected int, found str 'many'"),
        ("[venues.example]\ndepth = 0", "venues.example.depth: "),
        ("[venues.example]\ndept = 5", "venues.example: unknown key 'dept', did you mean 'depth'?"),
        ("[venues.example]\nsesion = {}", "venues.example: unknown key 'sesion', did you mean 'session'?"),
        ("[venues.example]\nspeed = '2s'", "venues.example.speed: expected one of 100ms, 1s, found '2s'"),
        ("[venues.example]\ncolour = 'green'", "venues.example.colour: expected one of red, blue"),
        (
            "[venues.example]\nweights = { a = 'x' }",
            "venues.example.weights.a: expected float, found str 'x'",
        ),
        (
            "[venues.exampel]",
            "venues.exampel: no plugin named 'exampel' is installed, did you mean 'example'?",
        ),
        ("[venues.kraken]", "pip install pricefeedd-kraken"),
        ("[venues.x]\nplugin = 'krakn'", "venues.x.plugin: no plugin named 'krakn' is installed"),
        ("[venues.kraken.session]\nstale_after_s = -1", "venues.kraken.session.stale_after_s: expected more"),
        ("venues = 3", "venues: expected a table, found int 3"),
        ("[venues.'a:b']\nplugin = 'example'", 'venues."a:b": a name is letters, digits, - and _'),
        (ACCOUNT + "environment = 'tesnet'", "Example has no environment 'tesnet', did you mean 'testnet'?"),
        (ACCOUNT.replace("order", "orders"), "no private channel 'orders', did you mean 'order'?"),
        (
            ACCOUNT.replace("example", "public"),
            "the plugin of Public has no private streams; remove the account",
        ),
        ("[venues.example.accounts.main]\nchannels = ['order']", "accounts.main: missing key 'api_key'"),
        ("[sinks.queu]\nurl = 'x'", "no plugin named 'queu' is installed, did you mean 'queue'?"),
        (
            "[sinks.zmq]\nbind = 'x'",
            "sinks.zmq: no plugin named 'zmq' is installed; pip install pricefeedd-zmq",
        ),
        ("[sinks.queue]", "sinks.queue: missing key 'url'"),
        ("[sinks.queue]\nurl = 'x'\nlossy = 0", "sinks.queue.lossy: expected bool, found int 0"),
        (
            "[sinks.queue]\nurl = 'x'\ntopics = ['trade']",
            "sinks.queue.topics[0]: a topic is channel:venue:instrument",
        ),
        ("[sources.othre]\nurl = 'x'", "no plugin named 'othre' is installed, did you mean 'other'?"),
        ("[sources.other]", "sources.other: missing key 'url'"),
        (
            "[sources.other]\nurl = 'x'\ntopics = ['trade']",
            "sources.other.topics[0]: a topic is channel:venue:instrument",
        ),
        (
            "[sources.other]\nurl = 'x'\n[venues.example]",
            "sources.other: a source brings the epoch in which all numbers count, so it stands alone; remove [venues]",
        ),
        (
            "[sources.other]\nurl = 'x'\n[sources.more]\nplugin = 'other'\nurl = 'y'",
            "so it stands alone; run a daemon for each source",
        ),
        ("sources = 'x'", "sources: expected a table, found str 'x'"),
        ("store.url = 'mysql://u:hush@h/d'", "store.url: expected sqlite:///path or postgresql+psycopg://"),
        ("leader.elector = 'leese'", "no elector named 'leese' is installed, did you mean 'lease'?"),
        ("leader.elector = 'kubernetes'", "pip install pricefeedd-kubernetes"),
        ("leader.lease = { speed = 1 }", "leader.lease.speed: expected one of 100ms, 1s"),
        ("leader.leas = {}", "leader: unknown key 'leas', did you mean 'lease'?"),
        ("logging.level = 'warn'", "logging.level: unknown word 'warn', did you mean 'warning'?"),
        ("logging.format = 'xml'", "logging.format: unknown word 'xml'"),
        ("metrics.compat = 'yes'", "metrics.compat: expected bool"),
    ],
)
def test_each_mistake_is_told_with_a_way_out(problems: Any, text: str, problem: str) -> None:
    told = problems(text, {"A": "a-key", "B": "b-key"})

    assert any(problem in line for line in told), told
    assert "hush" not in str(told)
    assert all(re.match(r"pricefeedd\.toml:\d+: ", line) for line in told)


def test_a_plugin_that_is_broken_is_not_said_to_be_missing(problems: Any) -> None:
    reason = "plugin 'kraken' (pricefeedd_kraken): written for plugin API 99"

    assert problems("[venues.kraken]", broken={"kraken": reason}) == [
        f"pricefeedd.toml:1: venues.kraken: {reason}"
    ]
    assert problems("leader.elector='kraken'", broken={"kraken": reason})[0].endswith(reason)


@pytest.mark.parametrize(
    ("text", "line"),
    [("[web]\nlisten = [\n", 3), ("a = 1\nb 2\n", 2), ("a = 1\na = 2\n", 2), ("[web", 1)],
)
def test_text_that_is_not_toml_is_told_with_its_line(problems: Any, text: str, line: int) -> None:
    [problem] = problems(text)

    assert problem.startswith(f"pricefeedd.toml:{line}: not TOML: ")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "none.toml", venues={}, sinks={}, electors={}, environ={})
    (tmp_path / "latin.toml").write_bytes(b"# fine\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.toml:2: not UTF-8 text"):
        load(tmp_path / "latin.toml", venues={}, sinks={}, electors={}, environ={})


# --- secrets ----------------------------------------------------------------------------------------------


def test_a_secret_in_the_file_is_refused_and_not_repeated(problems: Any) -> None:
    [problem] = problems("[[web.keys]]\nname = 'ops'\nkey = 'hush'")

    assert problem.startswith(
        "pricefeedd.toml:3: web.keys[0].key: a secret does not stand in the file; write"
    )
    assert "hush" not in problem


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("{ env = 'NOPE' }", "environment variable 'NOPE' is not set"),
        ("{ env = 'EMPTY' }", "environment variable 'EMPTY': empty"),
        ("{ env = 5 }", "expected text after env"),
        ("{ file = 'FOLDER/none' }", "cannot be read (No such file or directory)"),
        ("{ file = 'FOLDER/open' }", "everybody may read it (mode 644); chmod 600 the file"),
        ("{ file = 'FOLDER/empty' }", "empty"),
        ("{ file = 'FOLDER/binary' }", "not UTF-8 text"),
        ("{ file = 'FOLDER' }", "cannot be read (Is a directory)"),
        ("{ credential = 'x' }", "add LoadCredential=x:/path to the systemd unit"),
        ("{ credential = '../x' }", "expected a name, not a path"),
        ("{ credential = 'open' }", "everybody may read it"),
        ("{ vault = 'x' }", "a secret does not stand in the file"),
        ("{ env = 'BLANK' }", "use visible ASCII characters without blanks"),
    ],
)
def test_a_secret_that_cannot_be_had_is_told(
    problems: Any, tmp_path: Path, reference: str, problem: str
) -> None:
    for name, content, mode in [
        ("open", b"hush", 0o644),
        ("empty", b"\n", 0o600),
        ("binary", b"hush\xff", 0o600),
    ]:
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(mode)
    environ = {"EMPTY": "", "BLANK": "hush hush", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    if problem.startswith("add LoadCredential"):
        del environ["CREDENTIALS_DIRECTORY"]
    text = f"[[web.keys]]\nname = 'ops'\nkey = {reference}".replace("FOLDER", str(tmp_path))

    [told] = problems(text, environ)

    assert problem in told
    assert "hush" not in told


def test_what_a_plugin_says_of_a_secret_is_not_repeated(problems: Any) -> None:
    [told] = problems("venues.example.licence = { env = 'L' }", {"L": "hush" * 10})

    assert told == "pricefeedd.toml:1: venues.example.licence: not valid (ValueError; the value is not shown)"
    [told] = problems("venues.example.licence = ['hush']")
    assert "hush" not in told


# --- the environment --------------------------------------------------------------------------------------


def test_variables_lie_over_the_file(read: Any) -> None:
    config = read(
        "[web]\nmax_clients = 5\nheartbeat_s = 7\n[venues.example]\ndepth = 3\n" + ACCOUNT,
        {
            "A": "from-A",
            "PRICEFEEDD__WEB__LISTEN": '["0.0.0.0:80"]',
            "PRICEFEEDD__WEB__MAX_CLIENTS": "77",
            "PRICEFEEDD__VENUES__EXAMPLE__ENDPOINTS__SPOT_WS": "ws://127.0.0.1:9001",
            "PRICEFEEDD__VENUES__EXAMPLE__ACCOUNTS__MAIN__API_KEY": "12345",
            "PRICEFEEDD__VENUES__EXAMPLE__ACCOUNTS__MAIN__API_SECRET": '{ env = "A" }',
            "PRICEFEEDD__LOGGING__LEVEL": "debug",
            "PRICEFEEDD__STORE": '{ candles = false, url = "sqlite:///x.db" }',
            "PRICEFEEDD_OPS_KEY": "not one of ours",
        },
    )

    assert config.web.listen == ("0.0.0.0:80",)
    assert config.web.max_clients == 77
    assert config.web.heartbeat_s == 7
    assert config.venues["example"].endpoints == {"spot_ws": "ws://127.0.0.1:9001"}
    assert config.venues["example"].settings.depth == 3
    account = config.venues["example"].accounts["main"]
    assert (account.api_key, account.api_secret) == ("12345", "from-A")
    assert config.logging.level == "debug"
    assert config.store is not None
    assert not config.store.candles


def test_variables_find_names_with_dashes_and_items_of_arrays(read: Any) -> None:
    config = read(
        "[venues.my-Venue]\nplugin = 'example'\n[[venues.my-Venue.subscribe]]\nmarket = 'spot'\n"
        "instruments = ['A-B']\nchannels = ['trade']",
        {"PRICEFEEDD__VENUES__MY_VENUE__SUBSCRIBE__0__CHANNELS": '["quote"]'},
    )

    assert config.venues["my-Venue"].subscribe[0].channels == ("quote",)


def test_mistakes_in_variables_name_the_variable(problems: Any) -> None:
    told = problems(
        "[web]\nmax_clients = 5\nlisten = ['127.0.0.1:1']",
        {
            "PRICEFEEDD__WEB__MAX_CLIENTS": "many",
            "PRICEFEEDD__WEB__MAX_CLIENT": "5",
            "PRICEFEEDD__WEB__LISTEN__3": "x",
            "PRICEFEEDD__WEB__LISTEN__0__X": "x",
            "PRICEFEEDD__LOGING__LEVEL": "info",
            "PRICEFEEDD__": "x",
        },
    )

    assert sorted(told) == [
        "PRICEFEEDD__: a name is empty; write PRICEFEEDD__SECTION__KEY",
        "PRICEFEEDD__LOGING__LEVEL: unknown key 'loging', did you mean 'logging'?",
        "PRICEFEEDD__WEB__LISTEN__0__X: web.listen[0] is a value, not a table",
        "PRICEFEEDD__WEB__LISTEN__3: '3' is no item of an array of 1",
        "PRICEFEEDD__WEB__MAX_CLIENT: web: unknown key 'max_client', did you mean 'max_clients'?",
        "PRICEFEEDD__WEB__MAX_CLIENTS: web.max_clients: expected int, found str 'many'",
    ]


def test_a_variable_cannot_smuggle_other_keys_in(read: Any) -> None:
    with pytest.raises(ConfigError, match="expected int, found str"):
        read("", {"PRICEFEEDD__WEB__MAX_CLIENTS": "5\nx = 1"})


def test_without_a_file_the_environment_counts() -> None:
    environ = {"PRICEFEEDD__WEB__MAX_CLIENTS": "3"}

    assert load(None, venues={}, sinks={}, electors={}, environ=environ).web.max_clients == 3


def test_a_tree_made_by_a_command_is_read_like_a_file() -> None:
    with pytest.raises(
        ConfigError, match=r"arguments: venues\.example\.subscribe\[0\]\.market: Example has no"
    ):
        build(
            {
                "venues": {
                    "example": {"subscribe": [{"market": "x", "instruments": ["A"], "channels": ["trade"]}]}
                }
            },
            venues=VENUES,
            sinks={},
            electors={},
            environ={},
            source="arguments",
        )


# --- places, files, differences ---------------------------------------------------------------------------


def test_the_state_directory_is_systemds_or_the_users() -> None:
    assert state_dir({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}) == "/var/lib/a"
    assert state_dir({"HOME": "/somewhere"}) == "/somewhere/.local/state/pricefeedd"


def test_the_file_asked_for_wins_over_the_one_that_lies_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = tmp_path / "other.toml"

    assert find_file(asked) == asked
    (tmp_path / "pricefeedd.toml").write_text("")
    assert find_file(None) == Path("pricefeedd.toml")


def test_lines_of_keys_are_found_in_all_that_toml_allows() -> None:
    text = '''\
top = 1  # [not.a.table]
"quoted key".'x.y' = """
[no]
"""
[a.b]
c = [
  1, # one
  { d = "]", e = 'x' },
  [ "\\"", 3 ],
]
[[a.list]]
f = 2020-01-01 10:00:00
[a.list.sub]
g = { h.i = 1 }
[[a.list]]
f = true
[a . "dots" ]
z = -1.5
'''
    tomllib.loads(text)
    lines = toml_place.lines_of_keys(text)

    assert lines["top",] == 1
    assert lines["quoted key", "x.y"] == 2
    assert lines["a", "b"] == 5
    assert lines["a", "b", "c", 0] == 7
    assert lines["a", "b", "c", 1, "e"] == 8
    assert lines["a", "b", "c", 2, 1] == 9
    assert lines["a", "list", 0, "f"] == 12
    assert lines["a", "list", 0, "sub", "g", "h", "i"] == 14
    assert lines["a", "list", 1, "f"] == 16
    assert lines["a", "dots", "z"] == 18
    assert toml_place.line_of(("a", "list", 1, "missing"), lines) == 15
    assert toml_place.line_of(("nowhere",), lines) is None


@given(st.text(alphabet="[]{}=.,'\"#ab1 \n\\", max_size=40))
def test_looking_for_lines_never_fails(text: str) -> None:
    toml_place.lines_of_keys(text)


def test_the_difference_of_two_configurations_is_told(read: Any) -> None:
    old = read(
        """
        [web]
        max_clients = 5
        [[web.keys]]
        name = "ops"
        key = { env = "A" }
        [[venues.example.subscribe]]
        market = "spot"
        instruments = ["BTC-USDT", "OLD-USDT"]
        channels = ["trade"]
        [venues.public]
        """,
        {"A": "hush-1"},
    )
    new = read(
        """
        [web]
        max_clients = 6
        [[web.keys]]
        name = "ops"
        key = { env = "A" }
        [venues.example]
        depth = 7
        [[venues.example.subscribe]]
        market = "linear"
        instruments = ["BTC-USDT-PERP"]
        channels = ["book"]
        [[venues.example.subscribe]]
        market = "spot"
        instruments = ["BTC-USDT", "NEW-USDT"]
        channels = ["trade"]
        [venues.example.endpoints]
        spot_ws = "ws://localhost:1"
        [store]
        """,
        {"A": "hush-2"},
    )

    assert diff(old, old) == []
    assert diff(old, new) == [
        "web.max_clients: 5 -> 6",
        "web.keys[ops].key: changed (not shown)",
        "venues.example.subscribe[spot].instruments: - OLD-USDT",
        "venues.example.subscribe[spot].instruments: + NEW-USDT",
        "venues.example.subscribe[linear]: added BTC-USDT-PERP (book)",
        "venues.example.endpoints.spot_ws: added ws://localhost:1",
        "venues.example.depth: 10 -> 7",
        "venues.public: removed",
        "store: off -> on",
    ]


# --- the example ------------------------------------------------------------------------------------------


def _uncommented(text: str) -> str:
    """Return the example with its commented examples in force; comments of those have two signs."""
    return re.sub(r"(?m)^#(?=[\[\w])", "", text)


def test_the_example_is_a_configuration_that_works(tmp_path: Path) -> None:
    plugins = load_plugins()
    config = load(
        EXAMPLE,
        venues=plugins.venues,
        sinks=plugins.sinks,
        electors=plugins.electors,
        environ={"STATE_DIRECTORY": str(tmp_path)},
    )

    assert config.web == WebConfig()
    assert config.venues["binance"].subscribe[0].channels == ("trade", "quote", "candle_1m", "book")


def _keys(kind: Any, table: Mapping[str, Any], skip: frozenset[str]) -> None:
    """Assert that a table names every key of a settings class, and the plain ones with their defaults."""
    fields = {field.name: field for field in attrs.fields(kind) if field.name not in ("name", "settings")}
    assert set(fields) - skip <= set(table), f"the example lacks {set(fields) - skip - set(table)}"
    for name, field in fields.items():
        if name in skip or field.default is attrs.NOTHING or isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]  # a class, whatever its stub says
            continue
        expected = list(field.default) if isinstance(field.default, tuple) else field.default
        assert table[name] == expected, f"{kind.__name__}.{name} is {expected!r} by default"
        # A switch that is written as 1 would compare equal.
        assert isinstance(table[name], bool) == isinstance(expected, bool)


def test_the_example_names_every_key_with_its_default() -> None:
    plain = tomllib.loads(EXAMPLE.read_text())
    # Its comments of prose begin with a blank, so what is uncommented is TOML.
    full = tomllib.loads(_uncommented(EXAMPLE.read_text()))

    for section in attrs.fields(Config):
        if section.metadata.get("outside"):
            continue
        assert section.name in full, f"the example lacks [{section.name}]"
    _keys(WebConfig, plain["web"], frozenset({"keys", "tls"}))
    _keys(TlsConfig, full["web"]["tls"], frozenset())
    _keys(KeyConfig, {"name": "", **full["web"]["keys"][0]}, frozenset())
    venue = full["venues"]["binance"]
    entries = frozenset({"accounts", "subscribe", "endpoints", "session"})
    _keys(VenueConfig, venue, entries)
    assert venue["plugin"] == "binance"
    _keys(SubscribeConfig, venue["subscribe"][0], frozenset({"instruments"}))
    _keys(SessionConfig, plain["venues"]["binance"]["session"], frozenset())
    _keys(AccountConfig, full["venues"]["bybit"]["accounts"]["main"], frozenset({"passphrase"}))
    assert "passphrase" in full["venues"]["bybit"]["accounts"]["main"]
    _keys(SinkConfig, full["sinks"]["zmq"], frozenset())
    _keys(SourceConfig, full["sources"]["relay"], frozenset())
    _keys(StoreConfig, plain["store"], frozenset())
    _keys(LeaderConfig, plain["leader"], frozenset())
    _keys(LoggingConfig, plain["logging"], frozenset())
    _keys(MetricsConfig, plain["metrics"], frozenset())


def test_a_source_is_read_with_the_settings_of_its_plugin(read: Any) -> None:
    config = read("[sources.far]\nplugin = 'other'\nurl = 'x'\ntopics = ['trade:*:*']\naccounts = ['main']")

    found = config.sources["far"]
    assert (found.name, found.plugin, found.topics, found.accounts) == (
        "far",
        "other",
        ("trade:*:*",),
        ("main",),
    )
    assert found.settings == QueueSettings(url="x")
