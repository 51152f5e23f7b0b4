"""A double of kube-apiserver for Leases: what it answers, refuses and counts is what the real one does.

    python -m pricefeedd_kubernetes.testing --port 0 --token secret --kubeconfig /tmp/kubeconfig

The contract in `tests/test_contract.py` is run against both. It keeps everything in memory and knows one resource; there
is no watch, no patch, and nobody's `managedFields`.
"""

from __future__ import annotations

import base64
import re
import ssl
import sys
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import attrs
import click
import orjson
import trio

from pricefeedd.testing.faults import Faults
from pricefeedd.testing.server import CutError, serve_stream
from pricefeedd.testing.sockets import Connection, Pacing, Request, Response, Socket

GROUP = "coordination.k8s.io"
VERBS = frozenset({"get", "list", "create", "update", "delete"})

#: Everybody, while there are no tokens; and who shows none while there are.
ADMIN, ANONYMOUS = "kubernetes-admin", "system:anonymous"

_PATH = re.compile(rf"/apis/{re.escape(GROUP)}/v1/namespaces/([^/]+)/leases(?:/([^/]+))?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


class StatusError(Exception):
    """An answer other than the object asked for."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str = "",
        name: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.headers = headers or {}
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason or _REASONS[code],
            "details": {"name": name, "group": GROUP, "kind": "leases"} if name else {},
            "code": code,
        }


@attrs.frozen(kw_only=True)
class Write:
    """A change that was made.

    Attributes:
        at: Trio's clock.
        holder: Of the Lease after it; "" for nobody.
        version: The Lease's, after it.
    """

    at: float
    name: str
    holder: str
    version: int


class KubeApi:
    """Serves Leases over HTTP/1.1, with TLS if it is given a context.

    Attributes:
        namespaces: Those that there are.
        tokens: Users by their bearer tokens; while empty, everybody is the administrator.
        rights: Verbs that a user may use on Leases; all, for those who are not named.
        leases: The objects, by namespace and name.
        requests: How many came, by verb.
        writes: All changes, in order.
        broken: Answered to everything instead, if set: a code, and seconds after which to come again if not 0.
        latency_s: Before anything is done.
        connections: Byte streams accepted.
    """

    def __init__(
        self,
        *,
        namespaces: Iterable[str] = ("default",),
        tokens: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.namespaces = set(namespaces)
        self.tokens = dict(tokens or {})
        self.rights: dict[str, frozenset[str]] = {ANONYMOUS: frozenset()}
        self.leases: dict[tuple[str, str], dict[str, Any]] = {}
        self.requests: Counter[str] = Counter()
        self.writes: list[Write] = []
        self.broken: tuple[int, float] | None = None
        self.latency_s = 0.0
        self.connections = 0
        self.host = ""
        self.port = 0
        self._tls = tls
        self._version = 100
        self._open: set[Connection | None] = set()
        self._go_on = trio.Event()
        self._go_on.set()
        self._silent = False
        self._refusing = False
        self._changed = trio.lowlevel.ParkingLot()

    # --- faults ----------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Take connections and requests, and do nothing; what came is done after `thaw`, as of a stopped process."""
        if self._go_on.is_set():
            self._go_on = trio.Event()

    def fall_silent(self) -> None:
        """Do what is asked, and do not answer until `thaw`."""
        self.freeze()
        self._silent = True

    def thaw(self) -> None:
        """Work again."""
        self._silent = False
        self._go_on.set()

    def cut(self, *, refuse: bool = False) -> None:
        """End all connections with a reset, and those that come as well while it refuses."""
        self._refusing = refuse
        for connection in list(self._open):
            if connection is not None:
                connection.abort()

    def accept(self) -> None:
        """Refuse no more."""
        self._refusing = False

    async def changed(self) -> None:
        """Wait for the next change of any Lease."""
        await self._changed.park()

    # --- serving ---------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    async def run(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled."""
        listeners = await trio.open_tcp_listeners(port, host=host)
        self.host, self.port = host, listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trio.serve_listeners, self._serve, listeners))
            task_status.started(self.url)

    async def _serve(self, tcp: trio.SocketStream) -> None:
        if self._tls is None:
            await self._serve_client(tcp, "")
            return
        stream = trio.SSLStream(tcp, self._tls, server_side=True, https_compatible=True)
        try:
            with trio.fail_after(10):
                await stream.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError):
            await trio.aclose_forcefully(stream)
            return
        subject = (stream.getpeercert() or {}).get("subject", ())
        names = [value for part in subject for key, value in part if key == "commonName"]
        # Half closing is for WebSockets, which nobody opens here.
        await self._serve_client(cast(trio.abc.HalfCloseableStream, stream), names[0] if names else "")

    async def _serve_client(self, stream: trio.abc.HalfCloseableStream, certified: str) -> None:
        client = _Client(self, certified)
        try:
            await serve_stream(stream, client)
        finally:
            self._open.discard(client.connection)

    def admit(self, connection: Connection) -> None:
        """Count a connection, and keep it for `cut`."""
        self.connections += 1
        self._open.add(connection)

    async def answer(self, request: Request, certified: str) -> Response:
        """Return the answer to a request of somebody whose certificate names them so.

        Raises:
            CutError: The connection shall end.
        """
        if self._refusing:
            raise CutError
        if self.latency_s:
            await trio.sleep(self.latency_s)
        if not self._silent:
            await self._go_on.wait()
        try:
            code, body = self._do(request, certified)
            headers: Mapping[str, str] = {}
        except StatusError as e:
            code, body, headers = e.code, e.body, e.headers
        await self._go_on.wait()
        return Response(status=code, headers=headers, body=orjson.dumps(body))

    def _do(self, request: Request, certified: str) -> tuple[int, Any]:
        if self.broken is not None:
            code, after_s = self.broken
            headers = {"retry-after": f"{after_s:g}"} if after_s else {}
            raise StatusError(code, "the server is currently unable to handle the request", headers=headers)
        user = self._user(request, certified)
        if request.path in ("/healthz", "/readyz", "/livez"):
            return 200, "ok"
        if request.path == "/version":
            return 200, {"major": "1", "minor": "20", "gitVersion": "v1.20.2-double"}
        found = _PATH.fullmatch(request.path)
        if found is None:
            raise StatusError(404, "the server could not find the requested resource")
        namespace, name = unquote(found[1]), unquote(found[2] or "")
        verb = {
            ("GET", True): "get",
            ("GET", False): "list",
            ("POST", False): "create",
            ("PUT", True): "update",
            ("DELETE", True): "delete",
        }.get((request.method, bool(name)))
        if request.method == "PATCH" and name:
            raise StatusError(415, "415: Unsupported Media Type")  # which patches need, and we know none
        if verb is None:
            raise StatusError(405, "the server does not allow this method on the requested resource")
        self.requests[verb] += 1
        self._allow(user, verb, namespace, name)
        if verb == "get":
            return 200, self._lease(namespace, name)
        if verb == "list":
            return 200, self._list(namespace)
        if verb == "delete":
            gone = self._lease(namespace, name)
            del self.leases[namespace, name]
            self._note(name, "")
            details = {"name": name, "group": GROUP, "kind": "leases", "uid": gone["metadata"]["uid"]}
            return 200, {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Success",
                "details": details,
            }
        sent = _parsed(request.body)
        return self._create(sent, namespace) if verb == "create" else self._update(sent, namespace, name)

    def _user(self, request: Request, certified: str) -> str:
        if certified:
            return certified
        if not self.tokens:
            return ADMIN
        if not request.headers.get("authorization"):
            return ANONYMOUS
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or token.strip() not in self.tokens:
            raise StatusError(401, "Unauthorized")
        return self.tokens[token.strip()]

    def _allow(self, user: str, verb: str, namespace: str, name: str) -> None:
        if verb in self.rights.get(user, VERBS):
            return
        what = f'leases.{GROUP} "{name}" is' if name else f"leases.{GROUP} is"
        raise StatusError(
            403,
            f'{what} forbidden: User "{user}" cannot {verb} resource "leases" in API group "{GROUP}"'
            f' in the namespace "{namespace}"',
            name=name,
        )

    # --- the resource ----------------------------------------------------------------------------------

    def _lease(self, namespace: str, name: str) -> dict[str, Any]:
        try:
            return self.leases[namespace, name]
        except KeyError:
            raise StatusError(404, f'leases.{GROUP} "{name}" not found', name=name) from None

    def _list(self, namespace: str) -> dict[str, Any]:
        items = [lease for (where, _), lease in sorted(self.leases.items()) if where == namespace]
        metadata = {"resourceVersion": str(self._version)}
        return {"kind": "LeaseList", "apiVersion": f"{GROUP}/v1", "metadata": metadata, "items": items}

    def _create(self, sent: dict[str, Any], namespace: str) -> tuple[int, Any]:
        metadata = sent.get("metadata") or {}
        name = metadata.get("name") or ""
        self._check_place(sent, namespace, name)
        if namespace not in self.namespaces:
            raise StatusError(404, f'namespaces "{namespace}" not found', name=namespace)
        if metadata.get("resourceVersion"):
            raise StatusError(500, "resourceVersion should not be set on objects to be created")
        _check(sent, name)
        if (namespace, name) in self.leases:
            raise StatusError(
                409, f'leases.{GROUP} "{name}" already exists', reason="AlreadyExists", name=name
            )
        made = {
            "uid": str(uuid.uuid4()),
            "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return 201, self._keep(sent, namespace, name, made)

    def _update(self, sent: dict[str, Any], namespace: str, name: str) -> tuple[int, Any]:
        metadata = sent.get("metadata") or {}
        self._check_place(sent, namespace, name)
        version = metadata.get("resourceVersion") or ""
        if version and not str(version).isdigit():
            raise StatusError(500, f'strconv.ParseUint: parsing "{version}": invalid syntax')
        if not version:
            raise StatusError(
                422,
                f'leases.{GROUP} "{name}" is invalid: metadata.resourceVersion: Invalid value: 0x0: '
                "must be specified for an update",
                name=name,
            )
        old = self.leases.get((namespace, name))
        uid = "" if old is None else old["metadata"]["uid"]
        if metadata.get("uid", uid) != uid:
            raise StatusError(
                409,
                f'Operation cannot be fulfilled on leases.{GROUP} "{name}": StorageError: invalid object, Code: 4, '
                f"Key: /registry/leases/{namespace}/{name}, ResourceVersion: 0, AdditionalErrorMsg: Precondition "
                f"failed: UID in precondition: {metadata['uid']}, UID in object meta: {uid}",
                name=name,
            )
        if old is None:
            # An update may make a Lease, whatever version it names: only the uid tells that another one was meant.
            made = {key: value for key, value in metadata.items() if key != "resourceVersion"}
            return self._create({**sent, "metadata": made}, namespace)
        kept = {key: old["metadata"][key] for key in ("uid", "creationTimestamp")}
        if version != old["metadata"]["resourceVersion"]:
            raise StatusError(
                409,
                f'Operation cannot be fulfilled on leases.{GROUP} "{name}": the object has been modified; '
                "please apply your changes to the latest version and try again",
                name=name,
            )
        _check(sent, name)
        return 200, self._keep(sent, namespace, name, kept)

    def _check_place(self, sent: dict[str, Any], namespace: str, name: str) -> None:
        metadata = sent.get("metadata") or {}
        if metadata.get("namespace", namespace) != namespace:
            raise StatusError(
                400,
                "the namespace of the provided object does not match the namespace sent on the request",
            )
        if metadata.get("name", name) != name:
            raise StatusError(
                400,
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})",
            )

    def _keep(
        self, sent: dict[str, Any], namespace: str, name: str, made: Mapping[str, str]
    ) -> dict[str, Any]:
        metadata = {key: value for key, value in (sent.get("metadata") or {}).items() if value}
        metadata |= {"name": name, "namespace": namespace, **made}
        spec = {key: value for key, value in (sent.get("spec") or {}).items() if value is not None}
        old = self.leases.get((namespace, name))
        if old is not None:
            metadata["resourceVersion"] = old["metadata"]["resourceVersion"]
            if old["metadata"] == metadata and old["spec"] == spec:
                return old  # what changes nothing is not written, and gets no new version
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        lease = {"kind": "Lease", "apiVersion": f"{GROUP}/v1", "metadata": metadata, "spec": spec}
        self.leases[namespace, name] = lease
        self._note(name, spec.get("holderIdentity", ""))
        return lease

    def _note(self, name: str, holder: str) -> None:
        self.writes.append(Write(at=trio.current_time(), name=name, holder=holder, version=self._version))
        self._changed.unpark_all()


class _Client:
    """One connection's side of the server."""

    def __init__(self, api: KubeApi, certified: str) -> None:
        self.pacing: Pacing = Faults([])
        self._api = api
        self._certified = certified
        self.connection: Connection | None = None

    async def admit(self, connection: Connection) -> bool:
        self.connection = connection
        self._api.admit(connection)
        return True

    async def upgrade(self, request: Request) -> Response | None:
        return Response(status=400)

    async def http(self, request: Request) -> Response:
        return await self._api.answer(request, self._certified)

    async def serve_socket(self, socket: Socket) -> None:
        raise NotImplementedError  # nothing is upgraded


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        sent = orjson.loads(body)
    except orjson.JSONDecodeError as e:
        raise StatusError(400, f"the object provided is unrecognized: {e}") from e
    if not isinstance(sent, dict):
        raise StatusError(400, "the object provided is unrecognized: not an object")
    if (sent.get("kind"), sent.get("apiVersion")) != ("Lease", f"{GROUP}/v1"):
        raise StatusError(
            400, f"the object provided is unrecognized: {sent.get('apiVersion')}, {sent.get('kind')}"
        )
    spec = sent.get("spec") or {}
    for key in ("acquireTime", "renewTime"):
        if spec.get(key) is not None and not _MICRO_TIME.fullmatch(str(spec[key])):
            raise StatusError(400, f"Lease in version v1 cannot be handled as a Lease: {key}: {spec[key]!r}")
    for key in ("leaseDurationSeconds", "leaseTransitions"):
        if spec.get(key) is not None and type(spec[key]) is not int:
            raise StatusError(400, f"Lease in version v1 cannot be handled as a Lease: {key}: {spec[key]!r}")
    return sent


def _check(sent: Mapping[str, Any], name: str) -> None:
    spec = sent.get("spec") or {}
    wrong = []
    if not name:
        wrong.append("metadata.name: Required value: name or generateName is required")
    elif len(name) > 253 or not _DNS_SUBDOMAIN.fullmatch(name):
        wrong.append(
            f'metadata.name: Invalid value: "{name}": a DNS-1123 subdomain must consist of lower case'
        )
    if spec.get("leaseDurationSeconds") is not None and spec["leaseDurationSeconds"] <= 0:
        wrong.append("spec.leaseDurationSeconds: Invalid value: must be greater than 0")
    if spec.get("leaseTransitions") is not None and spec["leaseTransitions"] < 0:
        wrong.append("spec.leaseTransitions: Invalid value: must be greater than or equal to 0")
    if wrong:
        text = wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]"
        raise StatusError(422, f'Lease.{GROUP} "{name}" is invalid: {text}', name=name)


def kubeconfig(
    server: str,
    *,
    namespace: str = "default",
    authority: bytes = b"",
    user: Mapping[str, Any] | None = None,
    **cluster: Any,
) -> str:
    """Return the text of a kubeconfig with one context.

    Args:
        authority: Certificates that vouch for the server, PEM.
        user: Of the user's entry.
        cluster: More of the cluster's entry; `_` in a name stands for `-`.
    """
    more = {key.replace("_", "-"): value for key, value in cluster.items()}
    if authority:
        more["certificate-authority-data"] = base64.b64encode(authority).decode()
    text: bytes = orjson.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server, **more}}],
            "users": [{"name": "test", "user": dict(user or {})}],
            "contexts": [
                {"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}
            ],
        },
        option=orjson.OPT_INDENT_2,
    )
    return text.decode()  # JSON is YAML


@click.command(help="Serve Leases as a kube-apiserver does, from memory, until it is killed.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", default=0, show_default=True, help="Where to listen; 0 for any free port.")
@click.option("--token", default="", help="The bearer token to be shown; none is asked for by default.")
@click.option("--namespace", default="default", show_default=True, help="The namespace that there is.")
@click.option("--kubeconfig", "path", type=click.Path(path_type=Path), help="Where to write a kubeconfig.")
@click.option(
    "--server", default="", help="The URL in the kubeconfig, such as a proxy's; our own by default."
)
def main(host: str, port: int, token: str, namespace: str, path: Path | None, server: str) -> None:
    """Run the command line: the URL is printed once it listens and the kubeconfig is written."""
    api = KubeApi(namespaces=(namespace,), tokens={token: "pricefeedd"} if token else None)

    def tell(url: str) -> None:
        if path is not None:
            user = {"token": token} if token else {}
            path.write_text(kubeconfig(server or url, namespace=namespace, user=user))
        click.echo(url)
        sys.stdout.flush()

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            tell(await nursery.start(api.run, host, port))

    trio.run(run)


if __name__ == "__main__":
    main()
