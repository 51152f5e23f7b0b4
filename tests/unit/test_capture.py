"""Captures are read as they are described, and told apart from what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from pricefeedd.testing.capture import Record, What, frames, read_capture

LINES = """\
wss://venue.test/stream?streams=a@x/b@y <-> 1626916403.8469708
1626916403.847065: {"stream":"a","data":"12: <- ->"}
wss://venue.test/stream <- 1626916404: {"method":"SUBSCRIBE"}
https://venue.test/depth?symbol=A&limit=5 -> 1626916404.543838: {"bids":[["1","2"]]}
configuration: {"ticker":["A-B"]}
1626916405.0: not json é
"""


def test_each_kind_of_line(tmp_path: Path) -> None:
    file = tmp_path / "x.capture"
    file.write_text(LINES, encoding="utf-8")
    records = read_capture(file)
    assert [r.what for r in records] == [What.OPENED, What.RECEIVED, What.SENT, What.REPLY, What.RECEIVED]
    assert records[0] == Record(
        what=What.OPENED, url="wss://venue.test/stream?streams=a@x/b@y", time_ns=1_626_916_403_846_970_800
    )
    assert records[1].text == '{"stream":"a","data":"12: <- ->"}'
    assert records[2].time_ns == 1_626_916_404_000_000_000
    assert records[3].url == "https://venue.test/depth?symbol=A&limit=5"
    assert frames(records) == [b'{"stream":"a","data":"12: <- ->"}', "not json é".encode()]


def test_several_files_are_read_in_order(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(f"1.5: {name}\n")
    assert [r.text for r in read_capture(tmp_path / "b", tmp_path / "a")] == ["b", "a"]


@pytest.mark.parametrize(
    "line", ["hello", "{}", "x <-> 1.0", "wss://a <-> 1.0: text", "1.0", "wss://a -> 1.0"]
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "bad.capture"
    file.write_text(f"1.0: fine\n{line}\n")
    with pytest.raises(ValueError, match=r"bad\.capture:2"):
        read_capture(file)
