"""`pricefeedd init-plugin`: what it writes works under any name, and what it cannot do it says, and changes nothing."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pricefeedd.cli.init_plugin import KINDS

ROOT = Path(__file__).parents[2]

#: The shortest and the longest name, for lines must be well broken under both.
NAMES = ("b2", "x" * 24)


def tree(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


async def written(cli: Any, kind: str, name: str, *more: str) -> Path:
    """Return the folder of a plugin that was just written."""
    ended = await cli.run("init-plugin", name, "--kind", kind, *more)
    assert (ended.code, ended.err) == (0, "")
    folder: Path = cli.folder / f"pricefeedd-{name}"
    assert f"{folder.name} is there" in ended.out
    return folder


# --- What it writes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_well_formed_under_any_name(cli: Any, kind: str, name: str) -> None:
    folder = await written(cli, kind, name, "--title", "Börse 2 & Co.")

    texts = {path: data.decode() for path, data in tree(folder).items()}
    assert {"pyproject.toml", "README.md", ".gitignore", f"pricefeedd_{name}/py.typed"} <= set(texts)
    assert not [path for path in texts if path.endswith(".in") or "acme" in path]
    assert not re.findall(r"(?i)acme|@[A-Z]+@", "".join(texts.values()))
    assert "Börse 2 & Co." in texts[f"pricefeedd_{name}/__init__.py"]
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask()
    for check in (["check"], ["format", "--check"]):
        ruff = await (await cli.program("ruff", *check, "--no-cache", folder)).ended(within_s=60)
        assert ruff.code == 0, ruff.out


@pytest.mark.timeout(300)
async def test_it_is_typed_to_the_last(cli: Any) -> None:
    # The names are those of things that Python has, and that a careless template would hide.
    names = ("str", "tuple", "open", "count", "list")
    folders = [await written(cli, kind, name) for kind, name in zip(KINDS, names, strict=True)]
    arguments = ["--config-file", folders[0] / "pyproject.toml", *folders]
    cli.environ["MYPYPATH"] = os.pathsep.join(map(str, folders))
    mypy = await (await cli.program("mypy", *arguments)).ended(within_s=250)

    assert mypy.code == 0, mypy.out
    assert "strict = true" in (folders[0] / "pyproject.toml").read_text()


@pytest.mark.timeout(600)
async def test_the_venue_stands_every_fault(cli: Any, installing: Mapping[str, str]) -> None:
    cli.environ.update(installing)
    folder = await written(cli, "venue", "example")
    pip = await (await cli.program("pip", "install", "--no-deps", "-e", folder)).ended(within_s=120)
    assert pip.code == 0, pip.err

    # The day takes nearly as long as all others; a plugin's own tests play it.
    played = await (
        await cli.program(
            "pricefeedd", "plugin-test", "example", "--skip", "day", "--jobs", "2", "--examples", "30"
        )
    ).ended(within_s=450)
    assert played.code == 0, played.out
    assert re.search(r"\n4\d passed, 0 failed, [12] n/a", played.out), played.out


def umask() -> int:
    """Return the mask of new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- What it cannot do --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["Acme"], "'Acme' cannot name a distribution, a package, an entry point and a section at once"),
        (["Acme"], "'acme' would do"),
        (["pricefeedd-acme"], "'acme' would do"),
        (["my-venue"], "'myvenue' would do"),
        (["2x"], "'2x' cannot"),
        (["a"], "2 to 24 letters"),
        (["a" * 25], "2 to 24 letters"),
        (["börse"], "letters from a to z"),
        ([""], "2 to 24 letters"),
        (["../x"], "'../x' cannot name"),
        (["import"], "'import' is a word of Python's"),
        (["base"], "'base' is a word of pricefeedd's own"),
        (
            ["binance"],
            "the plugin 'binance' (pricefeedd-binance 0.1.0) has that name; take another, or --force",
        ),
        (["postgres"], "the plugin 'postgres' (pricefeedd 0.1.0) has that name"),
        (["acme", "--kind", "moon"], "'moon' is not one of 'venue', 'sink', 'source', 'elector', 'command'"),
        (["acme", "--title", 'a"b'], "cannot be written into Python, TOML and Markdown"),
        (["acme", "--title", "{0}\n"], "cannot be written into Python, TOML and Markdown"),
        ([], "Missing argument 'NAME'"),
    ],
)
async def test_what_is_asked_wrongly_is_said(cli: Any, arguments: list[str], says: str) -> None:
    ended = await cli.run("init-plugin", *arguments)

    assert (ended.code, "Traceback" in ended.err) == (2, False), ended.err
    assert says in " ".join(ended.err.split())
    assert tree(cli.folder) == {}


async def test_a_name_of_ours_is_taken_even_where_that_plugin_is_not_installed(cli: Any) -> None:
    # As in an environment without it: no entry point is found, and the metadata of pricefeedd are the same.
    program = (
        "import importlib.metadata as m\n"
        "m.entry_points = lambda **_: []\n"
        "from pricefeedd.cli import main\n"
        "main(['init-plugin', 'kraken'])\n"
    )
    ended = await (await cli.python("-c", program)).ended(within_s=30)

    assert ended.code == 2
    assert "pricefeedd has a plugin 'kraken' of its own: pip install 'pricefeedd[kraken]'" in " ".join(
        ended.err.split()
    )


async def test_a_name_that_is_taken_can_be_had_by_force(cli: Any) -> None:
    folder = await written(cli, "sink", "kraken", "--force")

    assert (folder / "pricefeedd_kraken" / "sink.py").exists()


@pytest.mark.parametrize("there", ["folder", "empty folder", "file", "dangling link"])
async def test_what_is_there_stays_as_it_is(cli: Any, there: str) -> None:
    target = cli.folder / "pricefeedd-acme"
    if there == "file":
        target.write_text("mine")
    elif there == "dangling link":
        target.symlink_to("nowhere")
    else:
        target.mkdir()
        if there == "folder":
            (target / "codec.py").write_text("mine")
    before = tree(cli.folder)
    ended = await cli.run("init-plugin", "acme")

    assert ended.code == 1
    assert ended.err == "pricefeedd-acme is there already, and stays as it is; choose another --directory\n"
    assert tree(cli.folder) == before
    assert [path.name for path in cli.folder.iterdir()] == ["pricefeedd-acme"]


async def test_a_directory_that_is_not_there_is_said(cli: Any) -> None:
    ended = await cli.run("init-plugin", "acme", "--directory", "plugins")

    assert ended.code == 1
    assert ended.err == "plugins is no directory; make it, or choose another --directory\n"


@pytest.mark.skipif(sys.platform != "linux", reason="that directory is Linux's")
async def test_a_directory_that_cannot_be_written_is_said(cli: Any) -> None:
    # Not even root can make a folder here.
    ended = await cli.run("init-plugin", "acme", "--directory", "/proc/self/fd")

    assert ended.code == 1
    assert re.fullmatch(r"cannot write /proc/self/fd/pricefeedd-acme: .+; nothing was written\n", ended.err)


async def test_a_disk_that_fills_up_leaves_nothing_half_written(cli: Any) -> None:
    # No file may grow beyond this: some are written, and one fails in the middle.
    program = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "from pricefeedd.cli import main\n"
        "main(['init-plugin', 'acme'])\n"
    )
    ended = await (await cli.python("-B", "-c", program)).ended(within_s=30)

    assert (ended.code, ended.err) == (
        1,
        "cannot write pricefeedd-acme: File too large; nothing was written\n",
    )
    assert [*cli.folder.iterdir()] == []


# --- In the wheel -------------------------------------------------------------------------------------------


def test_every_template_is_of_a_kind() -> None:
    templates = ROOT / "pricefeedd" / "templates"
    assert {path.name for path in templates.iterdir()} == set(KINDS)
    # Whatever is not called so would be taken for a part of pricefeedd: by linters, or by Python.
    assert [path for path in templates.rglob("*") if path.is_file() and path.suffix != ".in"] == []
