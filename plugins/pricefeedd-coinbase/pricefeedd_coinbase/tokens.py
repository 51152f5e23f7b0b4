"""Tokens that Coinbase takes in place of a login: JWTs, signed with the key of the CDP portal.

https://docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-authentication
https://docs.cdp.coinbase.com/coinbase-app/authentication-authorization/api-key-authentication
"""

from __future__ import annotations

import base64
import binascii
import hashlib

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

#: Seconds that a token holds, and how far its beginning is put back: a clock ahead of the venue's is refused.
_LIFE_S = 120
_BACK_S = 5


class Key:
    """A key of the CDP portal; it makes tokens and shows nothing of itself."""

    def __init__(self, name: str, secret: str) -> None:
        """Read a key.

        Args:
            name: `organizations/.../apiKeys/...`, or a bare id.
            secret: PEM of an EC key on P-256 or of an Ed25519 key, or the base64 text of an Ed25519 one.

        Raises:
            ValueError: The secret is none of these.
        """
        self._name = name
        self._key = _read(secret)
        self._salt = hashlib.sha256(b"nonce" + secret.encode()).digest()

    def __repr__(self) -> str:
        return "Key(***)"

    @property
    def public(self) -> EllipticCurvePublicKey | Ed25519PublicKey:
        """What verifies its tokens."""
        return self._key.public_key()

    def token(self, now_ns: int, request_id: int) -> str:
        """Return a token that is good for the next two minutes."""
        ecdsa = isinstance(self._key, EllipticCurvePrivateKey)
        begins = now_ns // 1_000_000_000 - _BACK_S
        # Never the same twice and not to be guessed; from our arguments alone, so that codecs stay pure.
        nonce = hashlib.sha256(self._salt + f"{now_ns}:{request_id}".encode()).hexdigest()
        header = {"alg": "ES256" if ecdsa else "EdDSA", "typ": "JWT", "kid": self._name, "nonce": nonce}
        claims = {"iss": "cdp", "sub": self._name, "nbf": begins, "exp": begins + _LIFE_S}
        body = f"{_text(orjson.dumps(header))}.{_text(orjson.dumps(claims))}"
        return f"{body}.{_text(_sign(self._key, body.encode()))}"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _read(secret: str) -> EllipticCurvePrivateKey | Ed25519PrivateKey:
    # In environment variables line ends are often written as the two characters \ and n.
    text = secret.replace("\\n", "\n").strip()
    # What is wrong is told without the exception that found it: its text may hold a part of the secret.
    if text.startswith("-----BEGIN"):
        try:
            key = load_pem_private_key(text.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("the PEM text cannot be read") from None
        if isinstance(key, Ed25519PrivateKey) or (
            isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)
        ):
            return key
        raise ValueError("expected an EC key on the curve P-256, or an Ed25519 key")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) not in (32, 64):  # the seed, or the seed and then the public key
        raise ValueError("expected the PEM text of a key, or the base64 text of 32 or 64 bytes")
    return Ed25519PrivateKey.from_private_bytes(data[:32])


def _sign(key: EllipticCurvePrivateKey | Ed25519PrivateKey, data: bytes) -> bytes:
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(data)
    try:
        signature = key.sign(data, ECDSA(hashes.SHA256(), deterministic_signing=True))
    except UnsupportedAlgorithm:  # OpenSSL before 3.2
        signature = key.sign(data, ECDSA(hashes.SHA256()))
    # In a token the two numbers stand bare; the library wraps them.
    r, s = decode_dss_signature(signature)
    return r.to_bytes(32) + s.to_bytes(32)
