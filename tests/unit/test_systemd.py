"""The unit files: systemd's own tools find nothing wrong, and the hardening scores what is promised."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

FILES = Path(__file__).parents[2] / "systemd"
ANALYZE = shutil.which("systemd-analyze")

needs_analyze = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def unit(name: str) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as configparser documents it
    parser.read(FILES / name)
    return {section: dict(parser[section]) for section in parser.sections()}


def test_the_service_tells_systemd_what_it_does() -> None:
    service = unit("pricefeedd.service")["Service"]

    assert service["Type"] == "notify"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert service["RestartPreventExitStatus"] == "78"
    assert service["StateDirectory"] == "pricefeedd"
    assert service["Restart"] == "always"
    assert "WatchdogSec" in service


def test_the_account_of_the_service_is_the_one_that_is_made() -> None:
    made = [
        line.split()
        for line in (FILES / "pricefeedd.sysusers").read_text().splitlines()
        if line and not line.startswith("#")
    ]

    assert [(line[0], line[1]) for line in made] == [("u", unit("pricefeedd.service")["Service"]["User"])]


@needs_analyze
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    assert ANALYZE is not None
    for name in ("pricefeedd.service", "pricefeedd.socket"):
        # Only the program's place differs: it is installed elsewhere here.
        text = (FILES / name).read_text().replace("/usr/bin/pricefeedd", "/bin/true")
        (tmp_path / name).write_text(text)
    result = subprocess.run(
        [ANALYZE, "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
    )

    # It also tells of faults in units of the host; those are not ours.
    ours = [line for line in result.stderr.splitlines() if "pricefeedd" in line]
    assert ours == []


@needs_analyze
def test_the_hardening_scores_what_is_promised() -> None:
    assert ANALYZE is not None
    # The threshold is in tenths.
    result = subprocess.run(
        [ANALYZE, "security", "--offline=true", "--threshold=15", "--no-pager", FILES / "pricefeedd.service"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout[-300:] + result.stderr
    assert "Overall exposure level" in result.stdout
