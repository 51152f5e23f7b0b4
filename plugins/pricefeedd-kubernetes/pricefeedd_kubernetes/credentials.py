"""Where the cluster is and who we are: a pod's service account, or a kubeconfig. Files only; everything here blocks."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

from pricefeedd.errors import ConfigError
from pricefeedd_kubernetes.settings import KubernetesSettings

#: Where every pod finds its service account.
#: https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_MAX_BYTES = 4 << 20


@attrs.frozen(kw_only=True)
class Exec:
    """A program that tells our credentials: `user.exec` of a kubeconfig.

    Attributes:
        command: The program and its arguments.
        environ: What is added to its environment.
        api_version: Of what it is told, and prints.
        cluster: What it is told of the cluster; None if it does not want to know.
        hint: What to tell who has not got the program.
    """

    command: tuple[str, ...]
    environ: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    api_version: str
    cluster: Mapping[str, Any] | None = None
    hint: str = ""


@attrs.frozen(kw_only=True)
class Access:
    """The way to an API server.

    Attributes:
        source: Where this was read, for messages.
        server: Its URL, without a slash at the end.
        namespace: Ours; "" if nothing was said.
        authority: Certificates that vouch for the server, PEM; "" for the system's.
        verify: Whether anything needs to vouch for it.
        server_name: The name in its certificate; "" for the one in the URL.
        proxy: URL of an HTTP proxy; "" for none.
        token: Shown as `Bearer`; "" for none.
        token_file: Where the token is read again and again instead; it is changed under us.
        certificate: Our own, PEM, with its `key`; "" for none.
        username: With `password` for basic authentication; "" for none.
        exec: What tells the credentials instead.
    """

    source: str
    server: str
    namespace: str = ""
    authority: str = attrs.field(default="", repr=False)
    verify: bool = True
    server_name: str = ""
    proxy: str = ""
    token: str = attrs.field(default="", repr=False)
    token_file: Path | None = None
    certificate: str = attrs.field(default="", repr=False)
    key: str = attrs.field(default="", repr=False)
    username: str = ""
    password: str = attrs.field(default="", repr=False)
    exec: Exec | None = None

    def tls(self) -> ssl.SSLContext:
        """Return how the server is verified, and how we show who we are.

        Raises:
            ConfigError: A certificate or key is not one.
        """
        try:
            context = ssl.create_default_context(cadata=self.authority or None)
        except (ssl.SSLError, ValueError) as e:
            raise _problem(self.source, f"certificate-authority: no certificate in PEM ({_said(e)})") from e
        # Python 3.13 refuses authorities without a key identifier, which many a cluster was made with.
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate:
            try:
                _show(context, self.certificate, self.key)
            except (ssl.SSLError, OSError, ValueError) as e:
                raise _problem(
                    self.source, f"client-certificate, client-key: not a pair in PEM ({_said(e)})"
                ) from e
        return context

    def read_token(self) -> str:
        """Return the token as it is now; "" for none.

        Raises:
            ConfigError: Its file cannot be read.
        """
        if self.token_file is None:
            return self.token
        token = _text(self.token_file, self.source, "the token").strip()
        if not token or not token.isascii() or not token.isprintable():
            raise _problem(self.source, f"{self.token_file}: no token in it")
        return token


def find(
    settings: KubernetesSettings, environ: Mapping[str, str], *, account: Path = SERVICE_ACCOUNT
) -> Access:
    """Return the way to the API server that the settings mean, or that the surroundings offer.

    Raises:
        ConfigError: There is none, or what is said of it cannot be used.
    """
    if settings.kubeconfig:
        return from_kubeconfig([Path(settings.kubeconfig).expanduser()], settings.context)
    if environ.get("KUBERNETES_SERVICE_HOST") and (account / "token").exists() and not settings.context:
        return from_service_account(environ, account)
    listed = [Path(part).expanduser() for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    if listed:
        return from_kubeconfig(listed, settings.context)
    usual = Path(environ.get("HOME") or "~").expanduser() / ".kube" / "config"
    if usual.exists():
        return from_kubeconfig([usual], settings.context)
    raise _problem(
        "leader.kubernetes",
        f"no way to an API server: this is no pod with a service account ({account}/token), $KUBECONFIG is not set, "
        f"and there is no {usual}; set kubeconfig to a file's path",
    )


def from_service_account(environ: Mapping[str, str], account: Path = SERVICE_ACCOUNT) -> Access:
    """Return the way from within a pod, by its service account.

    Raises:
        ConfigError: A file is missing.
    """
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    source = "the pod's service account"
    namespace = account / "namespace"
    access = Access(
        source=source,
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        namespace=_text(namespace, source, "the namespace").strip() if namespace.exists() else "",
        authority=_text(account / "ca.crt", source, "the authority"),
        token_file=account / "token",
    )
    access.read_token()
    return access


def from_kubeconfig(paths: Sequence[Path], context: str = "") -> Access:
    """Return the way that a kubeconfig tells, or several that are read as one: of what has one name the first counts.

    Args:
        context: Which one; the current one by default.

    Raises:
        ConfigError: It cannot be read or used.
    """
    source = os.pathsep.join(map(str, paths))
    there = [path for path in paths if path.exists()]
    if not there:
        raise _problem(source, "no such file")
    files = [(path, _yaml(path)) for path in there]
    name = context or next((str(c) for _, f in files if (c := f.get("current-context"))), "")
    if not name:
        raise _problem(source, "no current-context; set context to one of its contexts")
    _, chosen = _named(files, "contexts", "context", name, source)
    where, cluster = _named(files, "clusters", "cluster", _word(chosen, "cluster", source), source)
    user_name = _word(chosen, "user", source)
    folder, user = _named(files, "users", "user", user_name, source) if user_name else (where, {})

    server = _word(cluster, "server", source).rstrip("/")
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _problem(source, f"server: expected https://host:port, found {server!r}")
    proxy = _word(cluster, "proxy-url", source)
    if proxy and urlsplit(proxy).scheme not in ("http", "https"):
        raise _problem(source, "proxy-url: only proxies of http:// and https:// are supported")
    for key in ("auth-provider", "as", "as-groups", "as-uid", "as-user-extra"):
        if user.get(key):
            raise _problem(
                source, f"user {user_name!r}: {key} is not supported; use a token, certificate or exec"
            )
    file = _word(user, "tokenFile", source)
    return Access(
        source=source,
        server=server,
        namespace=_word(chosen, "namespace", source),
        authority=_pem(cluster, "certificate-authority", where, source),
        verify=cluster.get("insecure-skip-tls-verify") is not True,
        server_name=_word(cluster, "tls-server-name", source),
        proxy=proxy,
        token=_word(user, "token", source),
        token_file=folder / file if file else None,
        certificate=_pem(user, "client-certificate", folder, source),
        key=_pem(user, "client-key", folder, source),
        username=_word(user, "username", source),
        password=_word(user, "password", source),
        exec=_exec(user["exec"], folder, source, cluster) if user.get("exec") else None,
    )


# --- the parts of a kubeconfig ------------------------------------------------------------------------------


def _problem(source: str, text: str) -> ConfigError:
    return ConfigError([text], source=source)


def _said(error: Exception) -> str:
    """Return what is wrong with something secret, without a part of it."""
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__


def _text(path: Path, source: str, what: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise _problem(source, f"{path}: {what} is larger than {_MAX_BYTES} bytes")
        return content.decode()
    except OSError as e:
        raise _problem(source, f"{path}: {what} cannot be read ({e.strerror})") from e
    except UnicodeDecodeError:
        raise _problem(source, f"{path}: {what} is not UTF-8 text") from None  # its cause may hold a secret


def _yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(_text(path, str(path), "the kubeconfig"))
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise _problem(str(path), f"no YAML{where}") from None  # its cause may hold a secret
    if not isinstance(found, dict):
        raise _problem(str(path), "no kubeconfig: expected clusters, users and contexts")
    return found


def _named(
    files: Sequence[tuple[Path, Mapping[str, Any]]], many: str, one: str, name: str, source: str
) -> tuple[Path, Mapping[str, Any]]:
    """Return an entry by its name, and the folder of its file: paths in it are meant from there."""
    known = []
    for path, content in files:
        entries = content.get(many) or []
        for entry in entries if isinstance(entries, list) else []:
            if not isinstance(entry, dict):
                continue
            if entry.get("name") == name:
                found = entry.get(one) or {}
                if isinstance(found, dict):
                    return path.parent, found
                raise _problem(source, f"{one} {name!r}: expected a mapping")
            known.append(str(entry.get("name")))
    raise _problem(source, f"no {one} named {name!r}; known: {', '.join(known) or 'none'}")


def _word(entry: Mapping[str, Any], key: str, source: str) -> str:
    value = entry.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _problem(source, f"{key}: expected text, found {type(value).__name__}")
    return value


def _pem(entry: Mapping[str, Any], key: str, folder: Path, source: str) -> str:
    """Return what is in the entry itself, or in a file that it names."""
    data = _word(entry, f"{key}-data", source)
    if data:
        try:
            return base64.b64decode(data, validate=False).decode("ascii")
        except (binascii.Error, UnicodeDecodeError):
            raise _problem(source, f"{key}-data: no base64 of PEM") from None
    path = _word(entry, key, source)
    return _text(folder / path, source, key) if path else ""


def _exec(found: Any, folder: Path, source: str, cluster: Mapping[str, Any]) -> Exec:
    if not isinstance(found, dict):
        raise _problem(source, "exec: expected a mapping")
    command = _word(found, "command", source)
    if not command:
        raise _problem(source, "exec: no command")
    if os.sep in command:
        command = str(folder / command)  # one without a slash is looked for in $PATH
    arguments, variables = found.get("args") or [], found.get("env") or []
    if not isinstance(arguments, list) or not all(isinstance(argument, str) for argument in arguments):
        raise _problem(source, "exec.args: expected texts")
    if not isinstance(variables, list) or not all(
        isinstance(v, dict) and isinstance(v.get("name"), str) and isinstance(v.get("value"), str)
        for v in variables
    ):
        raise _problem(source, "exec.env: expected names and values")
    version = _word(found, "apiVersion", source)
    if version not in ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"):
        raise _problem(
            source, f"exec.apiVersion: expected client.authentication.k8s.io/v1, found {version!r}"
        )
    told = None
    if found.get("provideClusterInfo"):
        told = {key: cluster[key] for key in _TOLD if key in cluster}
        authority = _pem(cluster, "certificate-authority", folder, source)
        if authority:
            told["certificate-authority-data"] = base64.b64encode(authority.encode()).decode()
    return Exec(
        command=(command, *arguments),
        environ={v["name"]: v["value"] for v in variables},
        api_version=version,
        cluster=told,
        hint=_word(found, "installHint", source).strip(),
    )


_TOLD = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url")


def _show(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load our certificate: from a file that nobody else may read, since OpenSSL takes nothing else here.

    Raises:
        ssl.SSLError: It is none, or the key is another's.
        ValueError: The key is encrypted.
    """

    def no_password() -> str:
        raise ValueError  # else OpenSSL asks the terminal for it

    with tempfile.NamedTemporaryFile("w", prefix="pricefeedd-") as file:
        file.write(f"{certificate}\n{key}")
        file.flush()
        context.load_cert_chain(file.name, password=no_password)
