"""The users of the fake Coinbase: their keys, by which tokens are verified, and their orders."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import attrs
import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from pricefeedd_coinbase.fake_words import time_text

Row = dict[str, Any]

#: Open orders in one frame of the snapshot; the last frame has fewer.
SNAPSHOT_ORDERS = 50

_OPEN = frozenset({"PENDING", "QUEUED", "OPEN", "CANCEL_QUEUED", "EDIT_QUEUED"})


@attrs.define
class User:
    """One user.

    Attributes:
        name: Of the key.
        public: The key's public half.
        orders: The newest row of each order, by id.
        nonces: Those of all tokens that were taken; none is taken twice.
        tokens: How many tokens were taken.
    """

    name: str
    public: EllipticCurvePublicKey | Ed25519PublicKey
    orders: dict[str, Row] = attrs.field(factory=dict)
    nonces: set[str] = attrs.field(factory=set)
    tokens: int = 0

    def open_orders(self) -> list[list[Row]]:
        """Return the open orders in the frames of a snapshot: the last one is not full, and may be empty."""
        rows = [row for row in self.orders.values() if row["status"] in _OPEN]
        return [rows[at : at + SNAPSHOT_ORDERS] for at in range(0, len(rows) + 1, SNAPSHOT_ORDERS)]

    def row(self, order_id: str, status: str, now_ns: int, **change: Any) -> Row:
        """Return an order's new row, and remember it."""
        known = self.orders.get(order_id, {})
        fresh = {
            "avg_price": "0", "cancel_reason": "", "client_order_id": f"my-{order_id}", "completion_percentage": "0.00",
            "contract_expiry_type": "UNKNOWN_CONTRACT_EXPIRY_TYPE", "creation_time": time_text(now_ns, 6),
            "cumulative_quantity": "0", "filled_value": "0", "leaves_quantity": "1", "limit_price": "80000",
            "number_of_fills": "0", "order_id": order_id, "order_side": "BUY", "order_type": "Limit",
            "outstanding_hold_amount": "80000", "post_only": "false", "product_id": "BTC-USD", "product_type": "SPOT",
            "reject_reason": "", "retail_portfolio_id": "p", "risk_managed_by": "UNKNOWN_RISK_MANAGEMENT_TYPE",
            "status": status, "stop_price": "", "time_in_force": "GOOD_UNTIL_CANCELLED", "total_fees": "0",
            "total_value_after_fees": "0", "trigger_status": "INVALID_ORDER_TYPE",
        }  # fmt: skip
        row = self.orders[order_id] = {**fresh, **known, "status": status, **change}
        return row


def signer(token: object, users: dict[str, User], now_s: int) -> User | None:
    """Return whose token it is; None if it is not good: forged, too old, too early, or seen before."""
    try:
        head, claims, signature = str(token).split(".")
        header, said = orjson.loads(_bytes(head)), orjson.loads(_bytes(claims))
        user = users[said["sub"]]
        _verify(user, f"{head}.{claims}".encode(), _bytes(signature), header["alg"])
        good = (
            header["kid"] == user.name
            and header["typ"] == "JWT"
            and said["iss"] == "cdp"
            and said["nbf"] <= now_s < said["exp"] <= said["nbf"] + 120
            and header["nonce"] not in user.nonces
            and "uri" not in said
        )
    except (ValueError, KeyError, TypeError, binascii.Error, InvalidSignature):
        return None
    if not good:
        return None
    user.nonces.add(header["nonce"])
    user.tokens += 1
    return user


def _verify(user: User, body: bytes, signature: bytes, algorithm: str) -> None:
    if isinstance(user.public, Ed25519PublicKey):
        if algorithm != "EdDSA":
            raise InvalidSignature
        user.public.verify(signature, body)
        return
    if algorithm != "ES256" or len(signature) != 64:
        raise InvalidSignature
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    user.public.verify(encode_dss_signature(r, s), body, ECDSA(hashes.SHA256()))


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
