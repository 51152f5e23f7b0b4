"""A plugin of somebody else, installed with pip into an environment of its own, as its users would.

The environment is made once for the whole module; that takes a minute or two.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parents[2]
THIRDPARTY = ROOT / "tests" / "data" / "thirdparty"
VARIANTS = runpy.run_path(str(THIRDPARTY / "variants.py"))

pytestmark = pytest.mark.timeout(900)


@attrs.frozen
class Installed:
    """An environment with pricefeedd and plugins in it."""

    python: Path

    def pip(self, *arguments: str | Path) -> None:
        """Run pip."""
        command = [self.python, "-m", "pip", "--disable-pip-version-check", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command of pricefeedd, away from the source tree and with none of our own settings."""
        return subprocess.run(
            [self.python, "-I", "-m", "pricefeedd.cli", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.python.parent,
            env={"PATH": os.environ["PATH"], "HOME": str(self.python.parent)},
        )

    def plugins(self) -> Mapping[str, Mapping[str, str]]:
        """Return what `pricefeedd plugins` shows, by plugin."""
        result = self.run("plugins", "--json")
        assert result.returncode == 0, result.stderr
        return {row["plugin"]: row for row in json.loads(result.stdout)}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install pricefeedd, a plugin of ours, the third party's, and its broken variants."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True, capture_output=True)
    environment = Installed(folder / "venv" / "bin" / "python")
    broken = [VARIANTS["make"](name, folder) for name in VARIANTS["NAMES"]]
    good = VARIANTS["make"]("acme", folder)
    environment.pip("install", ROOT, ROOT / "plugins" / "pricefeedd-binance", good, *broken)
    return environment


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pricefeedd.toml"
    path.write_text(text)
    return path


SUBSCRIBE = (
    '[[venues.{0}.subscribe]]\nmarket = "spot"\ninstruments = ["BTC-USDT"]\nchannels = ["trade", "book"]\n'
)


def test_pip_install_is_all_that_a_plugin_needs(installed: Installed, tmp_path: Path) -> None:
    acme = installed.plugins()["acme"]

    assert acme["status"] == "loaded"
    assert acme["distribution"] == "pricefeedd-acme 1.2.0"
    assert acme["provides"] == "venue acme"
    result = installed.run("check", "--config", config(tmp_path, SUBSCRIBE.format("acme")))
    assert (result.returncode, result.stderr) == (0, "")


def test_broken_plugins_are_shown_with_reasons_and_harm_no_other(installed: Installed) -> None:
    plugins = installed.plugins()

    assert {name: row["status"] for name, row in plugins.items()} == {
        "acme": "loaded",
        "acmeclash": "broken",
        "acmeimport": "broken",
        "acmeraises": "broken",
        "acmeversion": "broken",
        "binance": "loaded",
        "postgres": "loaded",  # an elector of our own
    }
    for name, reason in {
        "acmeclash": "brings the venue binance, as plugin 'binance' (pricefeedd-binance) does; uninstall one",
        "acmeimport": "cannot be imported (ModuleNotFoundError: No module named 'acme_client_that_is_not_there')",
        "acmeraises": "pricefeedd_venues() failed (RuntimeError: no licence file)",
        "acmeversion": "written for plugin API 99, this pricefeedd speaks 1; install a matching release",
    }.items():
        assert reason in plugins[name]["reason"]


def test_the_table_for_people_shows_the_same(installed: Installed) -> None:
    result = installed.run("plugins")

    assert result.returncode == 0
    lines = {line.split("\t")[0]: line for line in result.stdout.splitlines()}
    assert "loaded" in lines["acme"]
    assert "broken" in lines["acmeversion"]
    assert "install a matching release" in lines["acmeversion"]


@pytest.mark.parametrize("name", [*VARIANTS["NAMES"]])
def test_a_broken_plugin_that_is_asked_for_stops_the_start(
    installed: Installed, tmp_path: Path, name: str
) -> None:
    result = installed.run("check", "--config", config(tmp_path, SUBSCRIBE.format(name)))

    assert result.returncode == 78
    assert f"plugin {name!r} (pricefeedd_{name}): " in result.stderr
    assert "Traceback" not in result.stderr


def test_a_broken_plugin_that_nobody_asks_for_stops_nothing(installed: Installed, tmp_path: Path) -> None:
    text = SUBSCRIBE.format("acme") + SUBSCRIBE.format("binance")

    assert installed.run("check", "--config", config(tmp_path, text)).returncode == 0


def test_bad_settings_of_a_plugin_are_told_with_line_and_a_way_out(
    installed: Installed, tmp_path: Path
) -> None:
    path = config(tmp_path, "[venues.acme]\nbook_levels = 'many'\nbook_level = 5\n")
    result = installed.run("check", "--config", path)

    assert result.returncode == 78
    assert result.stderr.splitlines() == [
        f"{path}: 2 problems",
        f"  {path}:2: venues.acme.book_levels: expected int, found str 'many'",
        f"  {path}:3: venues.acme: unknown key 'book_level', did you mean 'book_levels'?",
    ]


def test_a_plugin_that_is_not_there_is_told_with_its_name(installed: Installed, tmp_path: Path) -> None:
    result = installed.run("check", "--config", config(tmp_path, SUBSCRIBE.format("kraken")))

    assert result.returncode == 78
    assert "pip install pricefeedd-kraken" in result.stderr


@pytest.mark.parametrize("kind", ["venue", "sink", "source", "elector", "command"])
def test_the_wheel_has_what_a_new_plugin_is_made_of(installed: Installed, tmp_path: Path, kind: str) -> None:
    result = installed.run("init-plugin", "example", "--kind", kind, "--directory", tmp_path)

    assert (result.returncode, result.stderr) == (0, "")
    made = tmp_path / "pricefeedd-example"
    assert (made / "pricefeedd_example" / "py.typed").exists()
    assert (made / ".gitignore").exists()
