"""What README.md tells a user to type is typed here: each command, each piece of Python, each piece of TOML.

A command that stands in the README and in none of the tables below fails the first test.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from pricefeedd.hookspecs import Specs
from pricefeedd.testing.ports import free_port
from pricefeedd_binance.testing import BinanceFake

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

#: Where the daemon listens in the README; here it takes any free port.
ADDRESS = "127.0.0.1:8765"
#: How the README gets hold of the environment that these tests run in.
PREFIXES = ("python3 -m pip install --quiet uv && python3 -m uv run ", "uv run ")


def blocks(language: str, text: str = README) -> list[str]:
    """Return the README's code blocks of a language, or those in a part of it."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Return the commands in a part of the README, in order."""
    return [line.removeprefix("$ ") for block in blocks("console", text) for line in block.splitlines()]


#: The section whose commands are typed one after the other, and all the rest.
PLUGINS = README.partition("\n## Write a plugin\n")[2].partition("\n## ")[0]
COMMANDS = commands(README.replace(PLUGINS, ""))


@attrs.frozen(kw_only=True)
class Typed:
    """How a command is run here.

    Attributes:
        extra: Arguments added, so that it ends soon or takes a free port.
        demo: It speaks to a running demo.
        first: A command of the README that must have run before.
        serves: It goes on until it is stopped, and this is on its stdout or stderr by then.
        prints: A pattern that all it printed contains.
    """

    extra: tuple[str, ...] = ()
    demo: bool = False
    first: str | None = None
    serves: str | None = None
    prints: str = ""


RECORD = (
    "pricefeedd record binance BTC-USDT --channel trade --channel book --output btc.jsonl.gz --duration 3"
)

MIGRATE = "pricefeedd store migrate --config pricefeedd.toml"

TYPED = {
    f"{PREFIXES[0]}pricefeedd demo": Typed(extra=("--listen", "127.0.0.1:0"), serves="is serving"),
    f"uv run pricefeedd client ws://{ADDRESS}/ws 'trade:*:*' --limit 5": Typed(
        demo=True, prints=r"trade:binance:\S+ #\d+ id="
    ),
    f"curl --silent http://{ADDRESS}/ready": Typed(demo=True, prints='"status":"ready"'),
    f"curl --silent http://{ADDRESS}/api/v1/subscriptions --data "
    '\'{"venue":"binance","channel_type":"kline","symbol":"BTCUSDT","requesting_service":"order-manager"}\'': Typed(
        demo=True, prints='"feed":"candle_1m:binance:BTC-USDT-PERP"'
    ),
    f"curl --silent 'http://{ADDRESS}/api/v1/subscriptions"
    "?requesting_service=order-manager&is_active=true&limit=100'": Typed(
        demo=True, prints=r'\{"subscriptions":\[\],"total":0\}'
    ),
    f"curl --silent --request DELETE http://{ADDRESS}/api/v1/subscriptions/by-service/order-manager": Typed(
        demo=True, prints=r'\{"cancelled_count":0\}'
    ),
    f"curl --silent --request POST http://{ADDRESS}/api/v1/reload": Typed(
        demo=True, prints="there is no file to read again"
    ),
    f"pricefeedd explain trade:binance:BTC-USDT --url http://{ADDRESS}": Typed(
        demo=True, prints=r"\Atrade:binance:BTC-USDT: live \("
    ),
    "pricefeedd check --config pricefeedd.toml.example": Typed(prints="pricefeedd.toml.example: ok"),
    "pricefeedd run --config pricefeedd.toml": Typed(extra=("--listen", "127.0.0.1:0"), serves="serving"),
    "pricefeedd instruments binance --market linear --search BTC": Typed(
        prints="BTC-USDT-PERP\tBTCUSDT\tlinear"
    ),
    "pricefeedd tail binance BTC-USDT ETH-USDT --limit 10": Typed(prints=r"(?s)(.*?price=){10}"),
    "pricefeedd tail binance BTC-USDT-PERP --channel book --limit 3 --json": Typed(
        prints=r'(?s)"kind":"snapshot".*"kind":"delta".*"kind":"delta"'
    ),
    RECORD: Typed(prints=r"btc\.jsonl\.gz: \d\d+ frames"),
    "pricefeedd replay btc.jsonl.gz --speed 0 --print": Typed(first=RECORD, prints='"origin":"replay"'),
    MIGRATE: Typed(prints=r"went from version none to \d+"),
    "pricefeedd store info --config pricefeedd.toml": Typed(first=MIGRATE, prints="candles\t0\t"),
    "pricefeedd store prune --older-than 90d --dry-run --config pricefeedd.toml": Typed(
        first=MIGRATE, prints="candles\t0"
    ),
    f"curl --silent 'http://{ADDRESS}/api/v1/candles?topic=candle_1m:binance:BTC-USDT&limit=3'": Typed(
        demo=True, prints=r'"candles":\[\{"start":\d+,'
    ),
    "uv run contrib/bench/run.py": Typed(
        extra=("ingest", "--only=pricefeedd", "--messages=1000", "--rounds=1", "--pause-ms=0"),
        prints="pricefeedd",
    ),
}

#: Commands that another file runs, and the text in it that does.
ELSEWHERE = {
    "pricefeedd check --config pricefeedd.toml --diff": (
        "tests/wire/test_reload.py",
        'cli.run("check", "--config", run.file, "--diff", "--url", run.base)',
    ),
    f"{PREFIXES[0]}pytest": (".ci/run", f"{PREFIXES[0]}pytest"),
    "pip install . ./plugins/pricefeedd-binance": (
        "tests/wire/test_third_party_plugin.py",
        '.pip("install", ROOT, ROOT / "plugins" / "pricefeedd-binance"',
    ),
}


def test_each_command_is_run_by_somebody() -> None:
    assert len(COMMANDS) > 10
    assert set(COMMANDS) == set(TYPED) | set(ELSEWHERE)


@pytest.mark.parametrize("command", ELSEWHERE)
def test_it_is_run_there(command: str) -> None:
    path, text = ELSEWHERE[command]
    assert text in (ROOT / path).read_text()


async def demo(cli: Any) -> str:
    """Run the demo, and return its host and port."""
    running = await cli.start("demo", "--listen", "127.0.0.1:0")
    line: str = await running.until("ws://")
    found = re.search(r"ws://([\d.:]+)/ws", line)
    assert found is not None
    return found[1]


async def begin(cli: Any, command: str, extra: tuple[str, ...]) -> Any:
    """Type a command; what it names of the source tree is there, as in a checkout."""
    for prefix in PREFIXES:
        command = command.removeprefix(prefix)
    program, *arguments = [*shlex.split(command), *extra]
    if program == "pricefeedd":
        return await cli.start(*arguments)
    if program.endswith(".py"):
        return await cli.python(ROOT / program, *arguments)
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} here")
    call = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
    return await cli.python("-c", call, program, *arguments)


#: What another one needs is run together with that.
ALONE = [command for command in TYPED if command not in {typed.first for typed in TYPED.values()}]


@pytest.mark.parametrize("command", ALONE)
async def test_a_command_does_what_the_readme_says(cli: Any, exchange: BinanceFake, command: str) -> None:
    typed = TYPED[command]
    (cli.folder / "pricefeedd.toml.example").write_text((ROOT / "pricefeedd.toml.example").read_text())
    cli.config(configuration() + stored())
    cli.environ["STATE_DIRECTORY"] = str(cli.folder / "state")
    if typed.first is not None:
        before = await (await begin(cli, typed.first, TYPED[typed.first].extra)).ended(within_s=30)
        assert before.code == 0
        assert re.search(TYPED[typed.first].prints, before.out + before.err)
    text = command
    if typed.demo:
        text = text.replace(ADDRESS, await demo(cli))
    running = await begin(cli, text, typed.extra)
    if typed.serves is not None:
        with trio.fail_after(20):
            while typed.serves not in running.out + running.err:  # noqa: ASYNC110  # either of two streams
                await trio.sleep(0.05)
        ended = await running.end()
    else:
        ended = await running.ended(within_s=60)

    assert ended.code == 0, ended
    assert re.search(typed.prints, ended.out + ended.err)
    assert "Traceback" not in ended.err


# --- a plugin: one command after the other ------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Step:
    """How a command of the walk is run here.

    Attributes:
        extra: Arguments added, so that it ends soon.
        serves: It goes on to the end of the walk, and this is on its stdout or stderr first.
        prints: A pattern that all it printed contains.
        code: With which it ends.
    """

    extra: tuple[str, ...] = ()
    serves: str | None = None
    prints: str = ""
    code: int = 0


#: The walk goes through two of them, for two processes to share the time: what comes from here on is the second.
SECOND_WALK = "cd .."

WALK = {
    "pricefeedd init-plugin acme": Step(prints="pricefeedd-acme is there"),
    "cd pricefeedd-acme": Step(),
    "pip install -e '.[testing]'": Step(prints="Successfully installed pricefeedd-acme"),
    # The conformance kit is played by tests/wire/test_init_plugin.py.
    "pytest": Step(extra=("--ignore", "tests/test_conformance.py"), prints=r"\d\d passed"),
    "mypy": Step(prints="Success: no issues found"),
    "ruff check": Step(prints="All checks passed!"),
    "pricefeedd plugin-test acme --jobs 2": Step(extra=("--check", "cut"), prints="1 passed, 0 failed"),
    "pricefeedd demo --venue acme --exchange 127.0.0.1:9100": Step(
        extra=("--listen", ADDRESS), serves="pricefeedd tail acme BTC-USDT"
    ),
    f"pricefeedd client ws://{ADDRESS}/ws 'trade:acme:*' --limit 5": Step(prints=r"(?s)(trade:acme:.*?){5}"),
    "export PRICEFEEDD__VENUES__ACME__ENDPOINTS__WS=ws://127.0.0.1:9100": Step(),
    "export PRICEFEEDD__VENUES__ACME__ENDPOINTS__REST=http://127.0.0.1:9100": Step(),
    "pricefeedd tail acme BTC-USDT --limit 3": Step(prints=r"(?s)(.*?price=){3}"),
    "pricefeedd check --config acme.toml": Step(prints="acme.toml: ok"),
    "pricefeedd run --config acme.toml --listen 127.0.0.1:8766": Step(serves="serving"),
    'sed -i \'s/row\\["price"\\]/row["px"]/\' pricefeedd_acme/codec.py': Step(),
    "pytest tests/test_codec.py": Step(code=1, prints=r"KeyError\('px'\)"),
    'sed -i \'s/"price":/"px":/\' pricefeedd_acme/testing.py tests/test_codec.py tests/test_rest.py': Step(),
    "pytest tests/test_codec.py tests/test_rest.py": Step(prints=r"\d\d passed"),
    "pip wheel --no-deps --wheel-dir dist .": Step(prints=r"pricefeedd_acme-0\.1\.0-py3-none-any\.whl"),
    "pricefeedd plugins": Step(prints=r"acme\tpricefeedd-acme 0\.1\.0\tloaded\tvenue acme"),
    SECOND_WALK: Step(),
    "pricefeedd init-plugin webhook --kind sink": Step(prints="pricefeedd-webhook is there"),
    "pricefeedd init-plugin follow --kind source": Step(prints="pricefeedd-follow is there"),
    "pricefeedd init-plugin filelock --kind elector": Step(prints="pricefeedd-filelock is there"),
    "pricefeedd init-plugin holes --kind command": Step(prints="pricefeedd-holes is there"),
    "pip install -e ./pricefeedd-webhook -e ./pricefeedd-follow -e ./pricefeedd-filelock -e ./pricefeedd-holes": Step(
        prints="Successfully installed pricefeedd-filelock"
    ),
    **{
        f"pytest pricefeedd-{name}": Step(prints=r"\d passed")
        for name in ("webhook", "follow", "filelock", "holes")
    },
    "pricefeedd holes --help": Step(prints="Count the messages of each topic"),
}


def test_the_walk_is_the_sections() -> None:
    assert commands(PLUGINS) == [*WALK]


async def walk(cli: Any, steps: list[str], ports: dict[str, str]) -> None:
    """Type commands one after the other, as in one terminal; what serves has another."""

    def here(text: str) -> str:
        for port, taken in ports.items():
            text = text.replace(port, taken)
        return text

    for command in steps:
        step = WALK[command]
        program, *arguments = shlex.split(here(command))
        if program == "cd":
            cli.folder = (cli.folder / arguments[0]).resolve()
        elif program == "export":
            key, _, value = arguments[0].partition("=")
            cli.environ[key] = value
        else:
            running = await cli.program(program, *arguments, *map(here, step.extra))
            if step.serves is not None:
                with trio.fail_after(60):
                    while step.serves not in running.out + running.err:  # either of two streams
                        assert running.process.returncode is None, running.err
                        await trio.sleep(0.05)
                continue
            ended = await running.ended(within_s=120)
            assert ended.code == step.code, (command, ended)
            assert re.search(step.prints, ended.out + ended.err), (command, ended)


@pytest.mark.timeout(300)
async def test_a_venue_is_written_as_the_readme_says(cli: Any, installing: Mapping[str, str]) -> None:
    cli.environ.update(installing)
    ports = {f":{port}": f":{free_port()}" for port in (9100, 8765, 8766)}
    (settings,) = [block for block in blocks("toml", PLUGINS) if block.startswith("[venues.acme]")]
    first = [*WALK][: [*WALK].index(SECOND_WALK)]
    inside = first.index("pip install -e '.[testing]'")
    await walk(cli, first[:inside], ports)
    (cli.folder / "acme.toml").write_text(settings)
    await walk(cli, first[inside:], ports)


@pytest.mark.timeout(300)
async def test_other_plugins_are_written_as_the_readme_says(cli: Any, installing: Mapping[str, str]) -> None:
    cli.environ.update(installing)
    await walk(cli, [*WALK][[*WALK].index(SECOND_WALK) + 1 :], {})


# --- Python -------------------------------------------------------------------------------------------------

#: A text in the block, and a text that it prints once something came; None if it just ends.
PIECES = {
    "pricefeedd.stream(": "Trade(",
    "pricefeedd.client import": "trade:binance:",
    "def admit(epoch": None,
    "codec_laws": None,
    "conformance_tests(": None,
}


def test_each_piece_of_python_is_run() -> None:
    found = [[key for key in PIECES if key in block] for block in blocks("python")]
    assert sorted(key for keys in found for key in keys) == sorted(PIECES)
    assert all(len(keys) == 1 for keys in found)


@pytest.mark.parametrize("piece", PIECES)
async def test_a_piece_of_python_does_what_the_readme_says(
    cli: Any, exchange: BinanceFake, piece: str
) -> None:
    (code,) = [block for block in blocks("python") if piece in block]
    if ADDRESS in code:
        code = code.replace(ADDRESS, await demo(cli))
    running = await cli.python("-c", code)
    expected = PIECES[piece]
    if expected is None:
        ended = await running.ended(within_s=30)
        assert (ended.code, ended.err) == (0, "")
    else:
        await running.until(expected)


# --- TOML ---------------------------------------------------------------------------------------------------


def configuration() -> str:
    """Return the README's example of a configuration."""
    (text,) = [block for block in blocks("toml") if "[web]" in block]
    return text


def stored() -> str:
    """Return the README's section about the store."""
    (text,) = [block for block in blocks("toml") if block.startswith("[store]")]
    return text


async def test_the_configuration_is_one(cli: Any) -> None:
    ended = await cli.run("check", "--config", cli.config(configuration()))
    assert (ended.code, ended.err) == (0, "")


async def test_an_account_is_configured_so(cli: Any, tmp_path: Path) -> None:
    (text,) = [block for block in blocks("toml") if "accounts.main" in block]
    for name in ("bybit-key", "bybit-secret", "trader-key"):
        (tmp_path / name).write_text(f"content-of-{name}")
        (tmp_path / name).chmod(0o600)
    ended = await cli.run(
        "check", "--config", cli.config(text), environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}
    )
    assert (ended.code, ended.err) == (0, "")


def test_the_entry_point_is_as_in_the_whole_plugin() -> None:
    (text,) = [block for block in blocks("toml") if "entry-points" in block]
    shipped = tomllib.loads((ROOT / "tests" / "data" / "thirdparty" / "pyproject.toml").read_text())
    assert tomllib.loads(text)["project"]["entry-points"] == shipped["project"]["entry-points"]


# --- hooks --------------------------------------------------------------------------------------------------


def test_every_hook_is_in_the_table_and_in_a_plugin_that_the_walk_tries() -> None:
    hooks = {name for name in vars(Specs) if name.startswith("pricefeedd_")}
    rows = re.findall(r"^\| `(pricefeedd_\w+)\(\)` \| .* \| `(\w+)` \|$", PLUGINS, re.MULTILINE)
    assert {hook for hook, _ in rows} == hooks
    tried = {"venue", *re.findall(r"--kind (\w+)", "\n".join(WALK))}
    for hook, kind in rows:
        assert kind in tried
        (init,) = (ROOT / "pricefeedd" / "templates" / kind).glob("*/__init__.py.in")
        assert f"@hookimpl\ndef {hook}()" in init.read_text()


# --- what it says besides -----------------------------------------------------------------------------------


def test_files_that_it_names_are_there() -> None:
    named = set(re.findall(r"`((?:contrib|tests|pricefeedd|systemd)/[\w./-]*)`", README))
    assert len(named) > 5
    assert not [name for name in sorted(named) if not (ROOT / name).exists()]


async def test_the_paths_that_it_lists_answer(cli: Any) -> None:
    section = README.split("## Operate")[1].split("##")[0]
    paths = re.findall(r"`(/\w*)`", section)
    assert {"/", "/health", "/ready", "/status", "/feeds", "/metrics"} <= set(paths)
    program = (
        "import sys, urllib.request\n"
        "for path in sys.argv[2:]:\n"
        "    print(path, urllib.request.urlopen(f'http://{sys.argv[1]}{path}').status)\n"
    )
    running = await cli.python("-c", program, await demo(cli), *paths)
    ended = await running.ended()
    assert ended.lines == [f"{path} 200" for path in paths], ended.err


def test_python_is_new_enough() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["requires-python"].removeprefix(">=")
    assert f"Python {wanted} or newer" in README
    assert sys.version_info >= tuple(map(int, wanted.split(".")))
