"""pricefeedd: one daemon that owns the connections to the trading venues and serves everybody.

Importing the package, or any part of it, starts nothing. ``pricefeedd.stream`` is the in-process reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pricefeedd.inprocess import stream
__version__ = "0.1.0"
__all__ = ["__version__", "stream"]


def __getattr__(name: str) -> object:
    # Lazy, so that `pricefeedd --version` and plugins that import one module pay for nothing else.
    if name == "stream":
        from pricefeedd.inprocess import stream

        return stream
    raise AttributeError(f"module 'pricefeedd' has no attribute {name!r}")
