"""The whole daemon with the record beside it: killed, begun again, and on stdout."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import zstandard

from pricefeedd_binance.testing import BinanceFake

CONFIG = """
[web]
listen = ["127.0.0.1:0"]
[[venues.binance.subscribe]]
market = "spot"
instruments = ["BTC-USDT"]
channels = ["trade", "quote", "book"]
[sinks.jsonl]
flush_s = 0.1
conflate = false
"""


def read(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file; an end that a kill has torn is left out."""
    with zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True) as stream:
        return [json.loads(line) for line in stream.read().splitlines(keepends=True) if line.endswith(b"\n")]


async def test_what_was_written_is_there_after_a_kill_and_the_next_life_goes_on_beside_it(
    cli: Any, exchange: BinanceFake, eventually: Any
) -> None:
    cli.config(CONFIG + 'compression = "zstd"\n')
    cli.environ["STATE_DIRECTORY"] = str(cli.folder / "state")
    folder = cli.folder / "state" / "sinks" / "jsonl" / "jsonl"

    def files() -> list[Path]:
        return sorted(folder.glob("*/*"), key=lambda path: path.stat().st_mtime_ns)

    def trades(path: Path) -> list[dict[str, Any]]:
        return [m for m in read(path) if m["type"] == "trade"]

    for life in (1, 2):
        daemon = await cli.start("run")
        await daemon.until('"serving"', where="err", within_s=60)
        await eventually(lambda life=life: len(files()) >= life and len(trades(files()[-1])) > 20, 60)
        await daemon.end(signal.SIGKILL)
    epochs = set()
    for path in files():
        messages = read(path)
        (epoch,) = {message["epoch"] for message in messages}
        epochs.add(epoch)
        for topic in {message["topic"] for message in messages}:
            seqs = [message["seq"] for message in messages if message["topic"] == topic]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), "nothing missing within a file"
    assert len(epochs) == 2


async def test_the_record_on_stdout_is_for_pipes(cli: Any, exchange: BinanceFake) -> None:
    cli.config(CONFIG + 'path = "-"\ntopics = ["trade:*:*"]\n')
    daemon = await cli.start("run")
    await daemon.until('"serving"', where="err", within_s=60)
    await daemon.until('"trade:binance:BTC-USDT"', within_s=60)
    ended = await daemon.end()

    assert ended.code == 0
    assert {json.loads(line)["topic"] for line in ended.lines} == {"trade:binance:BTC-USDT"}
    assert [json.loads(line)["seq"] for line in ended.lines] == list(range(1, len(ended.lines) + 1))
