"""The load test against a real daemon, and against a server that loses numbers: it must see what is there, and what is not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.server import ServerConnection, serve

from pricefeedd.testing.ports import free_port

PROGRAM = Path(__file__).parents[2] / "contrib" / "load_test" / "load_test.py"
TRADE, QUOTE = "trade:x:BTC-USDT", "quote:x:BTC-USDT"


async def test_a_daemon_is_read_whole(cli: Any) -> None:
    demo = await cli.start("demo", "--listen", "127.0.0.1:0", "--rate", "50")
    address = (await demo.until("ws://")).partition("ws://")[2].split("/")[0]
    url = f"ws://{address}/ws"
    ended = await (
        await cli.python(
            PROGRAM, "--url", url, "--connections", "20", "--duration", "3", "--processes", "2", "--json"
        )
    ).ended(within_s=60)
    assert ended.code == 0, ended.out + ended.err
    found = json.loads(ended.out)
    assert found["connected"] == found["connections"] == 20
    assert found["failures"] == found["disconnects"] == found["bye"] == found["refused"] == {}
    assert found["lost"] == 0
    assert found["messages"] > 20 * 50
    assert found["bytes"] > 100 * found["messages"]
    for spread in (found["connect_ms"], found["subscribe_ms"], *found["latency_ms"].values()):
        assert list(spread) == ["p50", "p90", "p99", "p99.9", "max"]
        assert 0 < spread["p50"] <= spread["p99"] <= spread["max"]
    ended = await (
        await cli.python(
            PROGRAM, "--url", url, "--connections", "2", "--duration", "1", "--topics", "nothing:x:Y"
        )
    ).ended(within_s=40)
    assert ended.code == 1
    assert "2 x nothing:x:Y: " in ended.out


async def test_what_cannot_be_is_said(cli: Any) -> None:
    url = f"ws://127.0.0.1:{free_port()}/ws"
    ended = await (await cli.python(PROGRAM, "--url", url, "--duration", "0.5", "--connections", "3")).ended(
        within_s=40
    )
    assert ended.code == 69
    assert "0 of 3" in ended.out
    assert "cannot connect: " in ended.out


@pytest.mark.parametrize(
    "wrong", [("--url", "http://127.0.0.1/ws"), ("--topics", "trade"), ("--connections", "0")]
)
def test_a_wrong_command_line_is_told(
    wrong: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(PROGRAM.parent)
    import load_test  # type: ignore[import-not-found]  # a script

    monkeypatch.setattr("sys.argv", ["load_test.py", *wrong])
    with pytest.raises(SystemExit) as ended:
        load_test.arguments()
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


class Server:
    """Speaks the protocol's words as they are put into its mouth.

    Attributes:
        url: Where it listens.
        asked: What each connection subscribed.
    """

    def __init__(self, *plays: list[dict[str, Any]]) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []
        self._plays = list(plays)

    def handle(self, connection: ServerConnection) -> None:
        """Play the next connection's part; the last one stays open."""
        play = self._plays.pop(0)
        connection.send(json.dumps({"type": "welcome", "epoch": "e", "limits": {}}))
        self.asked.append(json.loads(connection.recv()))
        connection.send(json.dumps({"type": "ack", "id": 1, "results": [{"topic": "*:*:*", "ok": True}]}))
        for message in play:
            connection.send(json.dumps(message))
        if self._plays:
            connection.close(4008)
        else:
            for _ in connection:
                pass

    @contextmanager
    def run(self) -> Iterator[None]:
        """Serve."""
        with serve(self.handle, "127.0.0.1", 0) as server:
            self.url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws"
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            yield
            server.shutdown()
            thread.join()


def numbered(topic: str, *seqs: int, **more: Any) -> list[dict[str, Any]]:
    """Return messages of a topic with these numbers."""
    kind = topic.partition(":")[0]
    common = {"type": kind, "topic": topic, "ts_event": None, "ts_recv": 1, "origin": "live", "data": {}}
    return [common | more | {"seq": seq} for seq in seqs]


def gap(first: int, last: int) -> dict[str, Any]:
    """Return the word for dropped numbers."""
    return {
        "type": "gap",
        "topic": TRADE,
        "seq": last,
        "data": {"from_seq": first, "to_seq": last, "reason": "slow"},
    }


def conflated(seq: int, dropped: int) -> dict[str, Any]:
    """Return the word for states that were passed over before this one."""
    return {"type": "conflated", "topic": QUOTE, "seq": seq, "data": {"dropped": dropped}}


def heartbeat(**seqs: int) -> dict[str, Any]:
    """Return the daemon's last numbers."""
    return {"type": "heartbeat", "ts": 1, "seq": {f"{kind}:x:BTC-USDT": seq for kind, seq in seqs.items()}}


PLAYS = {
    "whole": (numbered(TRADE, 1, 2, 3, 4), {}, (0, 0)),
    "trades left out": (numbered(TRADE, 1, 2, 5, 6), {TRADE: 2}, (0, 0)),
    "a gap told": ([*numbered(TRADE, 1, 2), gap(3, 4), *numbered(TRADE, 5)], {}, (0, 2)),
    "half told": ([*numbered(TRADE, 1, 2), gap(3, 4), *numbered(TRADE, 7)], {TRADE: 2}, (0, 2)),
    "conflated": ([*numbered(QUOTE, 1, 2), conflated(6, 3), *numbered(QUOTE, 6)], {}, (3, 0)),
    "quotes left out": (numbered(QUOTE, 1, 2, 3, 4, 7, 8), {QUOTE: 2}, (0, 0)),
    "told behind a status": (
        [*numbered(QUOTE, 1, 2, 3), *numbered(QUOTE, 5, type="status"), conflated(6, 1), *numbered(QUOTE, 6)],
        {},
        (1, 0),
    ),
    "passed over on purpose": (numbered(QUOTE, 1, 2, 3) + numbered(QUOTE, 9, prev_seq=3), {}, (0, 0)),
    "the introduction": (
        [*numbered(QUOTE, 1), *numbered(QUOTE, 3, type="status"), *numbered(QUOTE, 4)],
        {},
        (0, 0),
    ),
    "the last one": ([*numbered(TRADE, 1, 2), heartbeat(trade=3), heartbeat(trade=3)], {TRADE: 1}, (0, 0)),
    "a heartbeat ahead": ([*numbered(TRADE, 1), heartbeat(trade=3), *numbered(TRADE, 2, 3)], {}, (0, 0)),
}


@pytest.mark.parametrize("play", PLAYS)
def test_loss_is_told_from_what_was_announced(play: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PROGRAM.parent)
    from figures import Figures  # type: ignore[import-not-found]  # a script's neighbour
    from sequence import Numbers  # type: ignore[import-not-found]

    messages, lost, announced = PLAYS[play]
    figures = Figures()
    numbers = Numbers(figures)
    numbers.begin("e")
    for message in messages:
        if message["type"] == "heartbeat":
            numbers.heartbeat(message["seq"])
        else:
            numbers.take(message, message["type"])
    numbers.end()
    assert figures.lost == lost
    assert (figures.conflated, figures.gap_seqs) == announced
    assert not figures.unsettled


@pytest.mark.parametrize(
    ("after", "lost"), [((3, 4), {}), ((5,), {TRADE: 2})], ids=["whole", "lost while away"]
)
async def test_it_comes_back_with_since_and_ends_with_1_when_something_is_lost(
    cli: Any, after: tuple[int, ...], lost: dict[str, int]
) -> None:
    server = Server(numbered(TRADE, 1, 2), numbered(TRADE, *after))
    with server.run():
        command = ("--url", server.url, "--connections", "1", "--duration", "3", "--json")
        ended = await (await cli.python(PROGRAM, *command)).ended(within_s=40)
    assert ended.err == ""
    found = json.loads(ended.out)
    assert found["lost_by_topic"] == lost
    assert ended.code == (1 if lost else 0)
    assert found["messages"] == 2 + len(after)
    assert found["reconnects"] == {"since": 1, "new_epoch": 0}
    assert found["disconnects"] == {"closed with 4008": 1}
    assert server.asked[1]["since"] == {"epoch": "e", "seq": {TRADE: 2}}


def test_each_line_of_the_table_is_in_the_readme() -> None:
    readme = PROGRAM.with_name("README.md").read_text()
    for word in (
        "connects",
        "to welcome",
        "messages",
        "ts_recv to here",
        "lost numbers",
        "announced",
        "own CPU",
    ):
        assert word in readme
