"""`meta` and `spotMeta` to instruments."""

from __future__ import annotations

from typing import Any

import pytest

from pricefeedd.errors import DecodeError
from pricefeedd.instruments import Instrument, InstrumentMap, Kind, UnknownInstrumentError
from pricefeedd_hyperliquid.listing import read_pairs, read_perpetuals, read_tokens

META = {
    "universe": [
        {"szDecimals": 5, "name": "BTC", "maxLeverage": 40, "marginTableId": 56},
        {"szDecimals": 1, "name": "MATIC", "maxLeverage": 20, "marginTableId": 20, "isDelisted": True},
        {"szDecimals": 0, "name": "kPEPE", "maxLeverage": 10, "onlyIsolated": True, "marginMode": "strictIsolated"},
    ],
    "marginTables": [[56, {"description": "tiered 40x", "marginTiers": [{"lowerBound": "0.0", "maxLeverage": 40}]}]],
    "collateralToken": 0,
}  # fmt: skip


def token(name: str, index: int, decimals: int = 2, *, canonical: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "szDecimals": decimals,
        "weiDecimals": 8,
        "index": index,
        "tokenId": f"0x{index:032x}",
        "isCanonical": canonical,
        "evmContract": None,
        "fullName": None,
    }


def pair(name: str, index: int, base: int, quote: int = 0, *, canonical: bool = False) -> dict[str, Any]:
    return {"tokens": [base, quote], "name": name, "index": index, "isCanonical": canonical}


def spot(*pairs: dict[str, Any], tokens: list[dict[str, Any]]) -> list[Instrument]:
    return read_pairs({"universe": list(pairs), "tokens": tokens})


TOKENS = [token("USDC", 0, 8, canonical=True), token("HYPE", 150), token("PURR", 1, 0, canonical=True)]


def test_perpetuals() -> None:
    bitcoin, matic, pepe = read_perpetuals(META, {})
    assert bitcoin == Instrument(
        venue="hyperliquid",
        market="linear",
        name="BTC-USD-PERP",
        symbol="BTC",
        kind=Kind.PERPETUAL,
        base="BTC",
        quote="USD",
        settle="USDC",
        tick_size=None,
        lot_size="0.00001",
        contract_currency="BTC",
        status="listed",
    )
    assert (matic.tradable, matic.status) == (False, "delisted")
    assert (pepe.name, pepe.symbol, pepe.lot_size, pepe.tradable) == ("kPEPE-USD-PERP", "kPEPE", "1", True)


def test_a_coin_is_found_in_any_case_and_asked_for_in_its_own() -> None:
    names = InstrumentMap("hyperliquid", "linear", read_perpetuals(META, {}))
    for spelling in ("kPEPE", "KPEPE", "kpepe-usd-perp"):
        assert names.find(spelling).symbol == "kPEPE"


def test_a_builders_coins_have_its_prefix_and_its_collateral() -> None:
    meta = {"universe": [{"szDecimals": 2, "name": "xyz:SP500"}], "collateralToken": 360}
    (index,) = read_perpetuals(meta, {0: "USDC", 360: "USDH"})
    assert (index.name, index.symbol, index.settle) == ("xyz:SP500-USD-PERP", "xyz:SP500", "USDH")
    (unknown,) = read_perpetuals(meta, {})
    assert unknown.settle == ""


def test_pairs() -> None:
    found = spot(
        pair("PURR/USDC", 0, 1, canonical=True), pair("@107", 107, 150), tokens=[TOKENS[0], TOKENS[2], TOKENS[1]]
    )  # fmt: skip
    assert [(i.name, i.symbol, i.base, i.quote, i.settle, i.lot_size) for i in found] == [
        ("PURR-USDC", "PURR/USDC", "PURR", "USDC", "USDC", "1"),
        ("HYPE-USDC", "@107", "HYPE", "USDC", "USDC", "0.01"),
    ]
    assert {(i.market, i.kind, i.tick_size) for i in found} == {("spot", Kind.SPOT, None)}


def test_tokens_are_found_by_index_and_not_by_place() -> None:
    tokens = [token("ODD", 7), *TOKENS]
    (hype,) = spot(pair("@107", 107, 150), tokens=tokens)
    assert (hype.base, hype.quote) == ("HYPE", "USDC")
    assert read_tokens({"tokens": tokens, "universe": []}) == {7: "ODD", 0: "USDC", 150: "HYPE", 1: "PURR"}


def test_the_quote_is_read_and_not_assumed() -> None:
    (dollar,) = spot(pair("@230", 230, 150, 360), tokens=[*TOKENS, token("USDH", 360)])
    assert dollar.name == "HYPE-USDH"


def test_a_name_that_several_pairs_have_goes_to_the_canonical_or_the_lowest() -> None:
    tokens = [*TOKENS, token("HYPE", 400), token("HYPE", 401)]
    found = spot(pair("@300", 300, 401), pair("@200", 200, 400), pair("@107", 107, 150), tokens=tokens)
    assert {i.symbol: i.name for i in found} == {
        "@107": "HYPE-USDC",
        "@200": "HYPE@200-USDC",
        "@300": "HYPE@300-USDC",
    }
    found = spot(pair("@107", 107, 150), pair("@200", 200, 400, canonical=True), tokens=tokens)
    assert {i.symbol: i.name for i in found} == {"@200": "HYPE-USDC", "@107": "HYPE@107-USDC"}
    names = InstrumentMap("hyperliquid", "spot", found).names
    assert len(set(names.values())) == len(names), "no two symbols share a topic"


def test_one_odd_row_does_not_take_the_others_with_it() -> None:
    odd = [{}, None, {"name": "X"}, {"name": "", "szDecimals": 1}, {"name": "Y", "szDecimals": "1"}]
    assert [i.symbol for i in read_perpetuals({"universe": [*odd, *META["universe"]]}, {})] == [  # type: ignore[misc]  # rows
        "BTC",
        "MATIC",
        "kPEPE",
    ]
    odd_pairs = [pair("@5", 5, 999), {"name": "@6"}, None, pair("@8", 8, 150, 999)]
    found = read_pairs({"universe": [*odd_pairs, pair("@107", 107, 150)], "tokens": [None, {}, *TOKENS]})
    assert [i.symbol for i in found] == ["@107"]


@pytest.mark.parametrize(
    "reply", [None, [], {}, {"universe": None}, {"universe": [{}]}, {"universe": [None]}]
)
def test_replies_that_list_nothing_we_can_read(reply: Any) -> None:
    with pytest.raises(DecodeError):
        read_perpetuals(reply, {})
    with pytest.raises(DecodeError):
        read_pairs(reply)


def test_an_unknown_coin_is_told_with_what_is_near() -> None:
    names = InstrumentMap("hyperliquid", "linear", read_perpetuals(META, {}))
    with pytest.raises(UnknownInstrumentError, match="did you mean BTC-USD-PERP"):
        names.find("BTC-USDT-PERP")
