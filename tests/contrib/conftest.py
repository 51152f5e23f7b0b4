"""Programs that look at what lies in contrib. One that is not there skips the test, or fails it where services are required."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]


def away(what: str) -> NoReturn:
    """Skip the test for want of a program, or fail where services are required."""
    if os.environ.get("PRICEFEEDD_REQUIRE_SERVICES") == "1":
        pytest.fail(f"{what}, and services are required")
    pytest.skip(what)


@pytest.fixture(scope="session", name="away")
def _away() -> Callable[[str], NoReturn]:
    """Return what a test calls when a program is not there."""
    return away


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Return a function that finds a program: beside Python, on the PATH, or where Debian keeps servers."""

    def find(name: str) -> str:
        places = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
        found = shutil.which(name, path=places)
        if found is None:
            away(f"no {name}")
        return found

    return find


@pytest.fixture(scope="session")
def lint(program: Callable[[str], str]) -> Callable[..., tuple[int, str]]:
    """Return a function that runs a linter at the top of the repository, and returns its exit code and words."""

    def run(name: str, *arguments: str | Path) -> tuple[int, str]:
        done = subprocess.run(
            [program(name), *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run
