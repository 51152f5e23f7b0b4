"""What is said to a proxy's wrong arguments."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from pricefeedd.errors import ServiceAwayError
from pricefeedd_zmq.command import zmq_proxy

ANY = "tcp://127.0.0.1:*"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--pull", "127.0.0.1:5546"), "expected an address such as"),
        (("--pub", "tcp://[::1]:5546"), "add --ipv6"),
        (("--http", "8000"), "expected host:port"),
        (("--http", "127.0.0.1:99999"), "expected host:port"),
        (("--high-water-mark", "0"), "is not in the range"),
        (("--nope",), "No such option"),
        (("--curve-secret-key-file", "/nope"), "does not exist"),
    ],
)
def test_mistakes_are_told(arguments: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(zmq_proxy, arguments)

    assert result.exit_code == 2
    assert said in result.output


def test_a_key_that_is_none_is_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "key"
    for content, mode, said in (
        (b"secret-word", 0o600, "expected the 40 characters"),
        (b"\xffsecret-word", 0o600, "is no text"),
        (b"x" * 40, 0o644, "everybody may read"),
    ):
        file.write_bytes(content)
        file.chmod(mode)
        result = CliRunner().invoke(zmq_proxy, ["--curve-secret-key-file", str(file)])
        assert result.exit_code == 2
        assert said in result.output
        assert "secret-word" not in result.output


@pytest.mark.parametrize("which", ["--pull", "--pub", "--http"])
def test_an_address_that_is_taken_is_a_service_that_is_away(which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        chosen = {"--pull": ANY, "--pub": ANY, "--http": ""}
        chosen[which] = f"127.0.0.1:{port}" if which == "--http" else f"tcp://127.0.0.1:{port}"
        result = CliRunner().invoke(zmq_proxy, [word for pair in chosen.items() for word in pair])

    assert isinstance(result.exception, ServiceAwayError)
    assert str(result.exception).endswith("Address already in use; is another proxy running already?")
