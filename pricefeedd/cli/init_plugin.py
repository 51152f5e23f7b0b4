"""A plugin to begin with: complete, tested, and to be replaced piece by piece by its author."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from pricefeedd import __version__
from pricefeedd.errors import PricefeeddError
from pricefeedd.loader import load_plugins

#: What each template brings, and what its author tries first.
KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "venue": (
        "a venue that does not exist, with all that a venue needs",
        ("pricefeedd plugin-test {name}", "pricefeedd demo --venue {name}"),
    ),
    "sink": ("a sink that posts what is served to a web server", ("pricefeedd plugins",)),
    "source": ("a source that serves what another pricefeedd writes to a file", ("pricefeedd plugins",)),
    "elector": ("an elector by a lock on a file", ("pricefeedd plugins",)),
    "command": ("a command that finds holes in a record", ("pricefeedd {name} --help",)),
}

#: A distribution, a package, an entry point and a section of the configuration bear it, so it is what all can be.
_NAME = re.compile(r"[a-z][a-z0-9]{1,23}")
#: Names of classes are made of the plugin's name: these would be those of classes that they inherit from.
_RESERVED = frozenset({"base", "none", "pricefeedd"})

#: Goes into Python, TOML and Markdown as it is.
_TITLE = re.compile(r"[^\W_][\w .,&!+-]{0,38}[\w.!+]|[^\W_]")

_SUFFIX = ".in"


@click.command("init-plugin")
@click.argument("name")
@click.option(
    "--kind", type=click.Choice([*KINDS]), default="venue", show_default=True, help="What the plugin brings."
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Where the folder pricefeedd-NAME is made; here by default.",
)
@click.option("--title", help="What people call it, such as 'Acme Exchange'; by default NAME with a capital.")
@click.option("--force", is_flag=True, help="Take NAME even though a plugin has it.")
def init_plugin(name: str, kind: str, directory: Path, title: str | None, force: bool) -> None:
    """Write a plugin that works, with its tests: the folder pricefeedd-NAME.

    NAME is that of the entry point and of the section in the configuration. Nothing that is there is changed.
    """
    _check_name(name, force=force)
    title = name.capitalize() if title is None else title
    if not _TITLE.fullmatch(title):
        raise click.BadParameter(
            f"{title!r} cannot be written into Python, TOML and Markdown; at most 40 letters, digits, blanks "
            "and . , & ! + - are taken, beginning with a letter or digit",
            param_hint="'--title'",
        )
    target = directory / f"pricefeedd-{name}"
    write(kind, name, title, target)
    what, tries = KINDS[kind]
    commands = "\n".join(f"  {text.format(name=name)}" for text in tries)
    click.echo(
        f"""{target} is there: {what}. It works as it is.

  cd {target}
  pip install -e '.[testing]'
  pytest
{commands}

Install it into the environment that pricefeedd is in. README.md in it says what to replace, in which order."""
    )


def _check_name(name: str, *, force: bool) -> None:
    """Raise what is wrong with a plugin's name.

    Raises:
        click.BadParameter: It cannot be one, or another plugin has it.
    """
    if not _NAME.fullmatch(name):
        plain = re.sub(r"[^a-z0-9]|^[^a-z]+", "", re.sub(r"^pricefeedd[-_]", "", name.lower()))
        hint = f"; {plain!r} would do" if _NAME.fullmatch(plain) else ""
        raise click.BadParameter(
            f"{name!r} cannot name a distribution, a package, an entry point and a section at once: take 2 to 24 "
            f"letters from a to z and digits, beginning with a letter{hint}",
            param_hint="'NAME'",
        )
    if name in _RESERVED or keyword.iskeyword(name):
        word = "a word of Python's" if keyword.iskeyword(name) else "a word of pricefeedd's own"
        raise click.BadParameter(f"{name!r} is {word}; take another", param_hint="'NAME'")
    if force:
        return
    for record in load_plugins().records:
        brings = [provided.partition(" ")[2] for provided in record.provides]
        if name == record.name or name in brings:
            by = f"{record.distribution} {record.version}".strip() or record.package
            raise click.BadParameter(
                f"the plugin {record.name!r} ({by}) has that name; take another, or --force",
                param_hint="'NAME'",
            )
    # Those of ours that are not installed here; "pricefeedd-NAME" is theirs all the same.
    if name in (metadata.metadata("pricefeedd").get_all("Provides-Extra") or ()):
        raise click.BadParameter(
            f"pricefeedd has a plugin {name!r} of its own: pip install 'pricefeedd[{name}]'; take another name, "
            "or --force",
            param_hint="'NAME'",
        )


def write(kind: str, name: str, title: str, target: Path) -> None:
    """Write a template's files to a folder that is not there yet: all of them, or nothing.

    Raises:
        PricefeeddError: It is there, or it cannot be written.
    """
    if os.path.lexists(target):
        raise PricefeeddError(f"{target} is there already, and stays as it is; choose another --directory")
    into = target.parent
    if not into.is_dir():
        raise PricefeeddError(f"{into} is no directory; make it, or choose another --directory")
    making: Path | None = None
    try:
        making = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=into))
        for path, text in files(kind, name, title):
            place = making / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
        mask = os.umask(0)
        os.umask(mask)
        making.chmod(0o777 & ~mask)
        making.rename(target)
        making = None
    except OSError as e:
        raise PricefeeddError(f"cannot write {target}: {e.strerror or e}; nothing was written") from e
    finally:
        if making is not None:
            shutil.rmtree(making, ignore_errors=True)


def files(kind: str, name: str, title: str) -> Iterator[tuple[str, str]]:
    """Yield path and text of each file of a template, with the plugin's own names in them."""
    # In the templates the plugin is called `acme`, its classes `Acme...`, and its title is `Acme`.
    words = {"acme": name, "Acme": title, "@PRICEFEEDD@": _requirement()}

    def named(text: str) -> str:
        text = re.sub(r"\bAcme(?=[A-Z])", name.capitalize(), text)
        return re.sub("|".join(words), lambda found: words[found[0]], text)

    for path, source in _found(resources.files("pricefeedd") / "templates" / kind):
        path = path.replace("acme", name).removesuffix(_SUFFIX)
        yield path.replace("gitignore", ".gitignore"), named(source.read_text(encoding="utf-8"))


def _requirement() -> str:
    """Return what a plugin that is written now needs."""
    major = int(__version__.partition(".")[0])
    return f"pricefeedd>={__version__},<{major + 1}"


def _found(folder: Traversable, below: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _found(entry, f"{below}{entry.name}/")
        elif entry.name.endswith(_SUFFIX):
            yield f"{below}{entry.name}", entry
