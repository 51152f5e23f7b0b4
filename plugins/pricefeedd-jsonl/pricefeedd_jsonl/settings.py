"""What an operator can set of the record."""

from __future__ import annotations

from typing import Any, Literal

import attrs

STDOUT = "-"

#: Suffix of the files, least and most level, and the level by default.
COMPRESSIONS = {"none": ("", 0, 0, 0), "gzip": (".gz", 1, 9, 6), "zstd": (".zst", 1, 22, 3)}


def _at_least(least: float) -> Any:
    def check(_: Any, __: Any, value: float | None) -> None:
        if value is not None and not least <= value < float("inf"):
            raise ValueError(f"expected at least {least:g}, found {value:g}")

    return check


def _path(_: Any, __: Any, value: str) -> None:
    if value != STDOUT and not value.startswith(("/", "{state_dir}")):
        raise ValueError(
            f'expected an absolute path, one below {{state_dir}}, or "-" for stdout; found {value!r}'
        )


@attrs.frozen(kw_only=True)
class JsonlSettings:
    """The plugin's own keys of `[sinks.jsonl]`.

    Attributes:
        path: Directory of the files, `{state_dir}` in it standing for the sink's own one; `-` for stdout.
        compression: `none`, `gzip` or `zstd`.
        level: Of the compression; 0 for its usual one.
        flush_s: What is written is on the file after so long at the latest.
        keep_days: Files of days before that are removed; None keeps all.
    """

    path: str = attrs.field(default="{state_dir}/jsonl", validator=_path)
    compression: Literal["none", "gzip", "zstd"] = "none"
    level: int = 0
    flush_s: float = attrs.field(default=1.0, validator=_at_least(0.01))
    keep_days: int | None = attrs.field(default=None, validator=_at_least(1))

    def __attrs_post_init__(self) -> None:
        """Check what depends on each other.

        Raises:
            ValueError: It does not fit.
        """
        _, low, high, _ = COMPRESSIONS[self.compression]
        if self.level and not low <= self.level <= high:
            bounds = f"from {low} to {high}" if high else "only 0: nothing is compressed"
            raise ValueError(f'levels of compression "{self.compression}" are {bounds}; found {self.level}')
