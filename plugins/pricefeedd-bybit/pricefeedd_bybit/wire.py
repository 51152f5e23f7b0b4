"""What all of Bybit's messages share: its name, and numbers that are texts, checked and never turned into others."""

from __future__ import annotations

from typing import Any

from pricefeedd.codec import decimal_text

VENUE = "bybit"

_NS_PER_MS = 1_000_000

#: All that a price or a size is written with.
_DECIMAL = b"0123456789."


def decimal_texts(values: dict[str, Any]) -> dict[str, Any]:
    """Return numbers without a sign, by name, as plain decimal texts; all are checked at once.

    Raises:
        TypeError, ValueError, AttributeError: One is none.
    """
    if not "".join(values.values()).encode().translate(None, _DECIMAL):
        return values
    return {name: decimal_text(text) for name, text in values.items()}


def best_level(side: Any) -> tuple[str, str] | tuple[None, None]:
    """Return price and size of the first level of a side, and None for both if there is none.

    Raises:
        TypeError, ValueError, AttributeError: It is no list of levels.
    """
    if type(side) is not list:
        raise TypeError("the levels are not a list")
    if not side:
        return None, None
    price, size = side[0]
    if (
        price.replace(".", "", 1).isdecimal()
        and size.replace(".", "", 1).isdecimal()
        and price.isascii()
        and size.isascii()
    ):
        return price, size
    return decimal_text(price), decimal_text(size)


def signed_text(text: Any) -> str:
    """Return a number that may be negative, as plain decimal text.

    Raises:
        TypeError, ValueError, AttributeError: It is none.
    """
    if text.startswith("-"):
        return f"-{decimal_text(text[1:])}"
    return decimal_text(text)


def levels(bids: Any, asks: Any) -> tuple[list[Any], list[Any]]:
    """Return the two sides of a book, checked: lists of pairs of decimal texts.

    All texts are checked at once: one by one that costs more than parsing the frame.

    Raises:
        TypeError, ValueError, AttributeError: They are something else.
    """
    if type(bids) is not list or type(asks) is not list:
        raise TypeError("the levels are not lists")
    rows = bids + asks
    # The unpacking requires pairs, the join requires texts.
    texts = [price + size for price, size in rows if price and size]
    if len(texts) != len(rows):
        raise ValueError("a level lacks its price or size")
    if "".join(texts).encode().translate(None, _DECIMAL):
        # Nearly always this is an error; a level in exponents is written out.
        bids = [[decimal_text(price), decimal_text(size)] for price, size in bids]
        asks = [[decimal_text(price), decimal_text(size)] for price, size in asks]
    return bids, asks


def ns_of_text(ms: Any) -> int:
    """Return ns of a time that comes as a text of ms.

    Raises:
        TypeError, ValueError, AttributeError: It is none.
    """
    if not (ms.isdecimal() and len(ms) < 20):
        raise ValueError(f"not a time in ms: {ms!r}")
    return int(ms) * _NS_PER_MS
