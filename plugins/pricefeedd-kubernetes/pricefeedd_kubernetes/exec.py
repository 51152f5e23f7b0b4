"""Credentials that a program tells: `exec` of a kubeconfig, as cloud providers have it.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime

import attrs
import orjson
import trio

from pricefeedd_kubernetes.credentials import Exec
from pricefeedd_kubernetes.errors import ApiError

#: A program that takes longer is ended.
_WITHIN_S = 60.0


@attrs.frozen(kw_only=True)
class Told:
    """What the program told.

    Attributes:
        token: Shown as `Bearer`; "" for none.
        certificate: PEM, with its `key`; "" for none.
        expires: Seconds since the Unix epoch; None if it did not say.
    """

    token: str = attrs.field(default="", repr=False)
    certificate: str = attrs.field(default="", repr=False)
    key: str = attrs.field(default="", repr=False)
    expires: float | None = None


async def ask(exec_: Exec) -> Told:
    """Run the program, and return what it told.

    Raises:
        ApiError: It is not there, failed, or told nothing that can be used.
    """
    name = exec_.command[0]
    spec = {"interactive": False, **({"cluster": exec_.cluster} if exec_.cluster else {})}
    info = {"kind": "ExecCredential", "apiVersion": exec_.api_version, "spec": spec}
    environ = {**os.environ, **exec_.environ, "KUBERNETES_EXEC_INFO": orjson.dumps(info).decode()}
    try:
        with trio.fail_after(_WITHIN_S):
            done = await trio.run_process(
                exec_.command,
                stdin=subprocess.DEVNULL,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=environ,
            )
    except OSError as e:
        hint = f"; {exec_.hint}" if exec_.hint else ""
        raise ApiError(f"exec {name}: cannot be run ({e.strerror}){hint}") from e
    except trio.TooSlowError as e:
        raise ApiError(f"exec {name}: told nothing within {_WITHIN_S:g} s") from e
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip()[-300:]
        raise ApiError(f"exec {name}: ended with {done.returncode}: {words or 'no word'}")
    return _parsed(done.stdout, name)


def _parsed(text: bytes, name: str) -> Told:
    try:
        status = orjson.loads(text)["status"]
        expires = status.get("expirationTimestamp")
        told = Told(
            token=status.get("token") or "",
            certificate=status.get("clientCertificateData") or "",
            key=status.get("clientKeyData") or "",
            expires=None if expires is None else datetime.fromisoformat(expires).astimezone(UTC).timestamp(),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as e:
        # What it told is secret, and so are causes that hold it.
        raise ApiError(f"exec {name}: told no ExecCredential ({type(e).__name__})") from None
    if not (told.token or told.certificate):
        raise ApiError(f"exec {name}: told neither a token nor a certificate")
    return told
