"""Where the cluster is and who we are: pods, kubeconfigs of all kinds, programs; and what is said when they are wrong."""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import stat
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pricefeedd.errors import ConfigError
from pricefeedd_kubernetes.api import LeaseApi
from pricefeedd_kubernetes.credentials import find, from_kubeconfig
from pricefeedd_kubernetes.errors import ApiError, RefusedError
from pricefeedd_kubernetes.settings import KubernetesSettings
from pricefeedd_kubernetes.testing import KubeApi, kubeconfig


@attrs.frozen
class Pair:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes

    def in_base64(self) -> dict[str, str]:
        return {
            "client-certificate-data": base64.b64encode(self.certificate).decode(),
            "client-key-data": base64.b64encode(self.key).decode(),
        }


class Authority:
    """Makes certificates; like many a cluster's, it has no key identifier."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("an authority", self._key.public_key(), ())

    def _sign(self, name: str, key: ec.EllipticCurvePublicKey, hosts: tuple[str, ...]) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")]))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == "an authority", path_length=None), critical=True)
        )
        if hosts:
            names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def pair(self, name: str, *hosts: str) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Pair(self._sign(name, key.public_key(), hosts), text)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def secure(nursery: trio.Nursery, tmp_path: Path, authority: Authority) -> KubeApi:
    """Return the double with TLS, on `localhost`; it takes tokens, and certificates of the authority."""
    pair = authority.pair("server", "localhost", "kubernetes.default.svc")
    file = tmp_path / "server.pem"
    file.write_bytes(pair.certificate + pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.load_verify_locations(cadata=authority.certificate.decode())
    context.verify_mode = ssl.CERT_OPTIONAL
    double = KubeApi(tokens={"a-token": "somebody"}, tls=context)
    await nursery.start(double.run)
    return double


def url(double: KubeApi, host: str = "localhost") -> str:
    return f"https://{host}:{double.port}"


def written(folder: Path, text: str, name: str = "config") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


async def ask(path: str, **settings: Any) -> object:
    """Look for the Lease by way of a kubeconfig."""
    with trio.fail_after(10):
        async with LeaseApi(KubernetesSettings(kubeconfig=path, **settings), {}) as api:
            return await api.get()


async def test_a_token(secure: KubeApi, authority: Authority, tmp_path: Path) -> None:
    text = kubeconfig(url(secure), authority=authority.certificate, user={"token": "a-token"})
    assert await ask(written(tmp_path, text)) is None


async def test_an_authority_in_a_file_beside_it(
    secure: KubeApi, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    (tmp_path / "token").write_text("a-token\n")
    text = kubeconfig(url(secure), user={"tokenFile": "token"}, certificate_authority="ca.crt")
    assert await ask(written(tmp_path, text)) is None


async def test_a_client_certificate(secure: KubeApi, authority: Authority, tmp_path: Path) -> None:
    pair = authority.pair("certified")
    secure.rights["certified"] = frozenset()
    text = kubeconfig(url(secure), authority=authority.certificate, user=pair.in_base64())
    with pytest.raises(RefusedError, match='User "certified" cannot get'):
        await ask(written(tmp_path, text))
    secure.rights["certified"] = frozenset({"get"})
    assert await ask(written(tmp_path, text)) is None
    (tmp_path / "c.crt").write_bytes(pair.certificate)
    (tmp_path / "c.key").write_bytes(pair.key)
    user = {"client-certificate": "c.crt", "client-key": str(tmp_path / "c.key")}
    text = kubeconfig(url(secure), authority=authority.certificate, user=user)
    assert await ask(written(tmp_path, text)) is None


async def test_a_server_is_verified(secure: KubeApi, authority: Authority, tmp_path: Path) -> None:
    user = {"token": "a-token"}
    with pytest.raises(ApiError, match="CERTIFICATE_VERIFY_FAILED"):
        await ask(written(tmp_path, kubeconfig(url(secure), user=user)))
    with pytest.raises(ApiError, match="CERTIFICATE_VERIFY_FAILED"):
        await ask(written(tmp_path, kubeconfig(url(secure), authority=Authority().certificate, user=user)))
    elsewhere = kubeconfig(url(secure, "127.0.0.1"), authority=authority.certificate, user=user)
    with pytest.raises(ApiError, match="mismatch"):
        await ask(written(tmp_path, elsewhere))
    assert "a-token" not in str(secure.requests), "it was not shown to who is not verified"
    assert secure.requests.total() == 0
    named = kubeconfig(
        url(secure, "127.0.0.1"),
        authority=authority.certificate,
        user=user,
        tls_server_name="kubernetes.default.svc",
    )
    assert await ask(written(tmp_path, named)) is None
    unverified = kubeconfig(url(secure, "127.0.0.1"), user=user, insecure_skip_tls_verify=True)
    assert await ask(written(tmp_path, unverified)) is None


async def test_a_new_authority_is_read_without_a_restart(
    secure: KubeApi, authority: Authority, tmp_path: Path
) -> None:
    user = {"token": "a-token"}
    path = written(tmp_path, kubeconfig(url(secure), authority=Authority().certificate, user=user))
    async with LeaseApi(KubernetesSettings(kubeconfig=path), {}) as api:
        with pytest.raises(ApiError, match="CERTIFICATE_VERIFY_FAILED"):
            await api.get()
        written(tmp_path, kubeconfig(url(secure), authority=authority.certificate, user=user))
        await trio.sleep(1.05)
        assert await api.get() is None


def pod(folder: Path, authority: Authority) -> Path:
    """Return a folder as pods have it."""
    (folder / "ca.crt").write_bytes(authority.certificate)
    (folder / "namespace").write_text("feeds")
    (folder / "token").write_text("a-token")
    return folder


async def test_a_pod(secure: KubeApi, authority: Authority, tmp_path: Path) -> None:
    """Its token is read again, with no refusal before."""
    account = pod(tmp_path, authority)
    environ = {"KUBERNETES_SERVICE_HOST": "localhost", "KUBERNETES_SERVICE_PORT": str(secure.port)}
    found = find(KubernetesSettings(), environ, account=account)
    assert (found.server, found.namespace, found.read_token()) == (url(secure), "feeds", "a-token")
    secure.namespaces.add("feeds")
    async with LeaseApi(KubernetesSettings(), environ, account=account, token_s=0.0) as api:
        assert api.namespace == "feeds"
        assert await api.get() is None
        secure.tokens["b-token"] = "somebody"
        (account / "token").write_text("b-token")
        del secure.tokens["a-token"]
        asked = secure.connections
        assert await api.get() is None
        assert secure.connections == asked  # on the same connection, and at once
        (account / "token").unlink()
        assert await api.get() is None  # the one that it has does


def test_an_address_of_ipv6(tmp_path: Path, authority: Authority) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1"}
    assert (
        find(KubernetesSettings(), environ, account=pod(tmp_path, authority)).server
        == "https://[fd00::1]:443"
    )


def test_what_is_looked_for_in_turn(tmp_path: Path, authority: Authority) -> None:
    def at(host: str) -> str:
        folder = tmp_path / host / ".kube"
        folder.mkdir(parents=True)
        return written(folder, kubeconfig(f"https://{host}"))

    account = tmp_path / "account"
    account.mkdir()
    environ = {"HOME": str(tmp_path / "home")}
    settings = KubernetesSettings()
    with pytest.raises(ConfigError, match=r"no way to an API server.*set kubeconfig"):
        find(settings, environ, account=account)
    at("home")
    assert find(settings, environ, account=account).server == "https://home"
    environ["KUBECONFIG"] = os.pathsep.join((str(tmp_path / "missing"), at("named")))
    assert find(settings, environ, account=account).server == "https://named"
    environ["KUBERNETES_SERVICE_HOST"] = "pod"
    assert find(settings, environ, account=account).server == "https://named"  # no service account is mounted
    pod(account, authority)
    assert find(settings, environ, account=account).server == "https://pod:443"
    settings = KubernetesSettings(kubeconfig=at("set"))
    assert find(settings, environ, account=account).server == "https://set"


def test_several_files_are_read_as_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (two / "t").write_text("of two")
    first = yaml.safe_dump(
        {"contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}], "current-context": "c"}
    )
    second = yaml.safe_dump(
        {
            "current-context": "other",
            "clusters": [{"name": "k", "cluster": {"server": "https://k/"}}],
            "users": [{"name": "u", "user": {"tokenFile": "t"}}],
        }
    )
    access = from_kubeconfig([Path(written(one, first)), Path(written(two, second))])
    assert access.server == "https://k"
    assert access.read_token() == "of two"


# --- programs ---------------------------------------------------------------------------------------------------

PROGRAM = """\
import json, os, pathlib, sys
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert info["kind"] == "ExecCredential" and info["apiVersion"] == "client.authentication.k8s.io/v1", info
assert os.environ["GREETING"] == "hello"
state = pathlib.Path(sys.argv[1])
if not state.exists():
    sys.exit("log in first")
status = json.loads(state.read_text())
if "server" in status.pop("wants", ""):
    assert info["spec"]["cluster"]["server"].startswith("https://"), info
with open(str(state) + ".runs", "a") as runs:
    runs.write(".")
print(json.dumps({"kind": "ExecCredential", "apiVersion": info["apiVersion"], "status": status}))
"""


def program(folder: Path, state: Path) -> dict[str, Any]:
    path = folder / "login.py"
    path.write_text(PROGRAM)
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(path), str(state)],
            "env": [{"name": "GREETING", "value": "hello"}],
            "provideClusterInfo": True,
        }
    }


async def until(api: LeaseApi, refusal: str = "") -> None:
    """Ask until there is an answer, or this refusal."""
    with trio.fail_after(15):
        while True:
            try:
                assert await api.get() is None
                break
            except RefusedError as e:
                if refusal and re.search(refusal, str(e)):
                    break
            await trio.sleep(0.05)


async def test_a_program_tells_a_token_and_another_one_before_it_ends(
    secure: KubeApi, authority: Authority, tmp_path: Path, nursery: trio.Nursery, when: Callable[..., Any]
) -> None:
    state = tmp_path / "state"
    user = program(tmp_path, state)
    path = written(tmp_path, kubeconfig(url(secure), authority=authority.certificate, user=user))

    def tell(token: str, for_s: float) -> None:
        ends = datetime.fromtimestamp(time.time() + for_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = {"token": token, "expirationTimestamp": ends, "wants": "server"}
        state.with_suffix(".new").write_text(json.dumps(status))
        state.with_suffix(".new").rename(state)

    async with LeaseApi(KubernetesSettings(kubeconfig=path), {}) as api:
        nursery.start_soon(api.keep_credentials)
        await until(api, "log in first")
        tell("a-token", 7)
        await until(api)
        runs = state.with_name("state.runs")
        assert runs.read_text() == "."
        secure.tokens["b-token"] = "somebody"
        tell("b-token", 3600)
        await when(lambda: runs.read_text() == "..")
        await trio.sleep(0.2)
        del secure.tokens["a-token"]
        assert await api.get() is None
        # One that is refused before its time is asked for at once.
        secure.tokens = {"c-token": "somebody"}
        tell("c-token", 3600)
        await until(api)
        nursery.cancel_scope.cancel()


async def test_a_program_tells_a_certificate(
    secure: KubeApi, authority: Authority, tmp_path: Path, nursery: trio.Nursery
) -> None:
    pair = authority.pair("certified")
    state = tmp_path / "state"
    state.write_text(
        json.dumps({"clientCertificateData": pair.certificate.decode(), "clientKeyData": pair.key.decode()})
    )
    user = program(tmp_path, state)
    path = written(tmp_path, kubeconfig(url(secure), authority=authority.certificate, user=user))
    async with LeaseApi(KubernetesSettings(kubeconfig=path), {}) as api:
        nursery.start_soon(api.keep_credentials)
        await until(api)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/nowhere/login", "cannot be run .*; install it from there"),
        ("/bin/false", "ended with 1: no word"),
        ("/bin/true", "told no ExecCredential"),
    ],
)
async def test_what_a_program_does_wrong_is_told(
    tmp_path: Path, nursery: trio.Nursery, when: Callable[..., Any], command: str, reason: str
) -> None:
    entry = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": command,
        "installHint": "install it from there",
    }
    path = written(tmp_path, kubeconfig("https://localhost:1", user={"exec": entry}))
    async with LeaseApi(KubernetesSettings(kubeconfig=path), {}) as api:
        nursery.start_soon(api.keep_credentials)
        with pytest.raises(RefusedError, match="has not told anything yet"):
            await api.get()
        await until(api, reason)
        nursery.cancel_scope.cancel()


# --- what is wrong ------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = yaml.safe_load(kubeconfig("https://localhost:6443"))


def changed(what: str, **entry: Any) -> dict[str, Any]:
    one = what.removesuffix("s")
    return {**GOOD, what: [{"name": "test", one: {**GOOD[what][0][one], **entry}}]}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a: [", "no YAML in line 1"),
        ("hello", "no kubeconfig"),
        ({**GOOD, "current-context": ""}, "no current-context; set context"),
        ({**GOOD, "current-context": "prod"}, "no context named 'prod'; known: test"),
        ({**GOOD, "clusters": []}, "no cluster named 'test'; known: none"),
        ({**GOOD, "users": None}, "no user named 'test'; known: none"),
        (changed("clusters", server="localhost"), "server: expected https://host:port, found 'localhost'"),
        (changed("clusters", server=7), "server: expected text, found int"),
        (changed("clusters", **{"proxy-url": "socks5://x"}), "proxy-url: only proxies of http"),
        (
            changed("clusters", **{"certificate-authority": "gone"}),
            "gone: certificate-authority cannot be read",
        ),
        (changed("clusters", **{"certificate-authority-data": "secret!"}), "certificate-authority.*: no"),
        (
            changed("users", **{"client-certificate-data": "c2VjcmV0"}),
            "client-certificate, client-key: not a pair",
        ),
        (changed("users", tokenFile="gone"), "gone: the token cannot be read"),
        (changed("users", **{"auth-provider": {"name": "gcp"}}), "'test': auth-provider is not supported"),
        (changed("users", **{"as": "root"}), "'test': as is not supported"),
        (changed("users", exec={}), None),
        (changed("users", exec={"command": "x"}), "exec.apiVersion: expected client.authentication"),
        (changed("users", exec={"args": ["x"]}), "exec: no command"),
        (changed("users", exec={"command": "x", "args": [1]}), "exec.args: expected texts"),
        (changed("users", exec={"command": "x", "env": [1]}), "exec.env: expected names and values"),
    ],
)
async def test_a_kubeconfig_that_cannot_be_used_ends_the_start(
    tmp_path: Path, content: Any, problem: str | None
) -> None:
    path = written(tmp_path, content if isinstance(content, str) else yaml.safe_dump(content))
    if problem is None:
        async with LeaseApi(KubernetesSettings(kubeconfig=path), {}):
            return
    with pytest.raises(ConfigError, match=problem) as caught:
        async with LeaseApi(KubernetesSettings(kubeconfig=path), {}):
            pass
    assert path in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match="/nowhere/config: 1 problem\n  no such file"):
        from_kubeconfig([Path("/nowhere/config")])


def test_an_encrypted_key_is_not_asked_for_at_the_terminal(authority: Authority, tmp_path: Path) -> None:
    pair = authority.pair("certified")
    key = serialization.load_pem_private_key(pair.key, None)
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    user = Pair(pair.certificate, text).in_base64()
    access = from_kubeconfig([Path(written(tmp_path, kubeconfig("https://localhost", user=user)))])
    with pytest.raises(ConfigError, match="client-certificate, client-key"):
        access.tls()


def test_secrets_are_not_shown(tmp_path: Path, authority: Authority) -> None:
    user = {"token": "s3cret", "password": "s3cret", "username": "u", **authority.pair("x").in_base64()}
    access = from_kubeconfig([Path(written(tmp_path, kubeconfig("https://localhost", user=user)))])
    assert "s3cret" not in repr(access)
    assert "PRIVATE KEY" not in repr(access)


def test_keys_are_written_where_nobody_else_reads(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    load = ssl.SSLContext.load_cert_chain

    def note(self: ssl.SSLContext, certfile: str, **others: Any) -> None:
        modes.append(stat.S_IMODE(Path(certfile).stat().st_mode))
        load(self, certfile, **others)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", note)
    user = authority.pair("x").in_base64()
    from_kubeconfig([Path(written(tmp_path, kubeconfig("https://localhost", user=user)))]).tls()
    assert modes == [0o600]
