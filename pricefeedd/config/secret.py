"""Secrets that the configuration only points at: `{ env = "X" }`, `{ file = "/path" }`, `{ credential = "name" }`."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

SOURCES = ("env", "file", "credential")

_MAX_BYTES = 64 * 1024


def is_reference(value: object) -> bool:
    """Return whether a value has the form of a pointer to a secret, right or wrong."""
    return type(value) is dict and len(value) == 1 and next(iter(value)) in SOURCES


def resolve(reference: Mapping[str, object], environ: Mapping[str, str]) -> str:
    """Return the secret that a reference points at, without the line end after it.

    Args:
        reference: A table with one key of `env`, `file` or `credential`.
        environ: The environment; `CREDENTIALS_DIRECTORY` in it is set by systemd for `LoadCredential=`.

    Raises:
        ValueError: It cannot be read, is empty, or lies in a file that everybody may read. The text never
            holds a part of the secret.
    """
    source, name = next(iter(reference.items()))
    if type(name) is not str or not name:
        raise ValueError(f'expected text after {source}, as in {{ {source} = "..." }}')
    if source == "env":
        return _from_environment(name, environ)
    if source == "file":
        return _from_file(Path(name), f"file {name!r}")
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise ValueError(
            f"credential {name!r}: CREDENTIALS_DIRECTORY is not set; "
            f"add LoadCredential={name}:/path to the systemd unit"
        )
    if "/" in name or name in (".", ".."):
        raise ValueError(f"credential {name!r}: expected a name, not a path")
    return _from_file(Path(directory, name), f"credential {name!r}")


def _from_environment(name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name)
    if value is None:
        raise ValueError(f"environment variable {name!r} is not set")
    return _not_empty(value, f"environment variable {name!r}")


def _from_file(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            # Asked of the open file: the one that is checked is the one that is read.
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ValueError(f"{what}: not a regular file")
            # On Windows the mode says nothing of who may read.
            if mode & stat.S_IROTH and sys.platform != "win32":
                raise ValueError(
                    f"{what}: everybody may read it (mode {stat.S_IMODE(mode):o}); chmod 600 the file"
                )
            content = file.read(_MAX_BYTES + 1)
    except OSError as e:
        raise ValueError(f"{what}: cannot be read ({e.strerror})") from e
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{what}: larger than {_MAX_BYTES} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        # The decoder's own error holds the content, so it is not chained.
        raise ValueError(f"{what}: not UTF-8 text") from None
    return _not_empty(text, what)


def _not_empty(value: str, what: str) -> str:
    value = value.rstrip("\r\n")
    if not value:
        raise ValueError(f"{what}: empty")
    return value
