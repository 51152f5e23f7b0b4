"""Tokens: what they say, who can check them, and that keys show nothing of themselves."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    derive_private_key,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from pricefeedd_coinbase.tokens import Key

NAME = "organizations/11111111/apiKeys/22222222"
NOW_NS = 1_790_735_993_500_000_000
EC = derive_private_key(1234567890123456789, SECP256R1())
ED = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def pem(key: Any, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    return str(key.private_bytes(Encoding.PEM, form, NoEncryption()).decode())


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    head, claims, signature = token.split(".")

    def read(text: str) -> bytes:
        assert "=" not in text
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    return orjson.loads(read(head)), orjson.loads(read(claims)), read(signature), f"{head}.{claims}".encode()


def check_ec(key: EllipticCurvePrivateKey, signature: bytes, signed: bytes) -> None:
    assert len(signature) == 64, "the two numbers stand bare"
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    public: EllipticCurvePublicKey = key.public_key()
    public.verify(encode_dss_signature(r, s), signed, ECDSA(hashes.SHA256()))


@pytest.mark.parametrize(
    "secret",
    [
        pem(EC, PrivateFormat.TraditionalOpenSSL),  # SEC1, as the portal writes it
        pem(EC),
        pem(EC, PrivateFormat.TraditionalOpenSSL).replace("\n", "\\n"),  # as in an environment variable
        "\n" + pem(EC) + "\n\n",
    ],
)
def test_a_token_of_an_ec_key(secret: str) -> None:
    head, claims, signature, signed = parts(Key(NAME, secret).token(NOW_NS, 1))
    assert (head["alg"], head["typ"], head["kid"]) == ("ES256", "JWT", NAME)
    assert len(head["nonce"]) == 64
    assert claims == {"iss": "cdp", "sub": NAME, "nbf": 1_790_735_988, "exp": 1_790_736_108}
    check_ec(EC, signature, signed)


SEED = bytes(range(32))
PUBLIC = ED.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


@pytest.mark.parametrize(
    "secret", [base64.b64encode(SEED).decode(), base64.b64encode(SEED + PUBLIC).decode(), pem(ED)]
)
def test_a_token_of_an_ed25519_key(secret: str) -> None:
    head, _, signature, signed = parts(Key(NAME, secret).token(NOW_NS, 1))
    assert head["alg"] == "EdDSA"
    ED.public_key().verify(signature, signed)


def test_a_token_is_made_of_its_arguments_and_no_two_are_alike() -> None:
    key = Key(NAME, pem(EC))
    assert key.token(NOW_NS, 1) == Key(NAME, pem(EC)).token(NOW_NS, 1)
    tokens = [key.token(NOW_NS, 1), key.token(NOW_NS, 2), key.token(NOW_NS + 1, 1)]
    assert len({parts(token)[0]["nonce"] for token in tokens}) == 3


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "abc",
        "!" * 44,
        base64.b64encode(b"x" * 33).decode(),
        "-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----\n",
        pem(generate_private_key(SECP384R1())),
    ],
)
def test_what_is_no_key_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(ValueError, match=r"key|PEM") as caught:
        Key(NAME, secret)
    assert secret[:10] not in str(caught.value) or len(secret) < 4
    assert caught.value.__cause__ is None


def test_a_key_shows_nothing_of_itself() -> None:
    assert repr(Key(NAME, pem(EC))) == "Key(***)"
