"""Daemons that stand for election, an API server (the double, or a real one), and a network between them that fails.

With PRICEFEEDD_KUBE_APISERVER=KUBECONFIG the contract and the elections are played at that server: with the contexts
`admin` (may do everything), `elector` (get, create and update Leases) and `stranger` (nothing). With
PRICEFEEDD_KUBE_APISERVER_PID it is also stopped and continued.
"""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import httpx
import pytest
import trio
import yaml

from pricefeedd.leader.lead import Lead
from pricefeedd_kubernetes.credentials import Access, from_kubeconfig
from pricefeedd_kubernetes.elector import run
from pricefeedd_kubernetes.settings import KubernetesSettings
from pricefeedd_kubernetes.testing import GROUP, KubeApi, kubeconfig

REAL = os.environ.get("PRICEFEEDD_KUBE_APISERVER", "")
REAL_PID = int(os.environ.get("PRICEFEEDD_KUBE_APISERVER_PID", "0"))

TOKENS = {"a-token": "admin", "e-token": "elector", "s-token": "stranger"}
RIGHTS = {"elector": frozenset({"get", "create", "update"}), "stranger": frozenset[str]()}


class Network:
    """A TCP proxy between one daemon and the API server."""

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self._target = (host, port)
        self._flowing = trio.Event()
        self._flowing.set()
        self._refusing = False
        self._scopes: set[trio.CancelScope] = set()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, client: trio.SocketStream) -> None:
        if self._refusing:
            await trio.aclose_forcefully(client)
            return
        with trio.CancelScope() as scope, suppress(OSError, trio.BrokenResourceError):
            self._scopes.add(scope)
            async with await trio.open_tcp_stream(*self._target) as server, trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, client, server, scope)
                nursery.start_soon(self._pump, server, client, scope)
        self._scopes.discard(scope)
        await trio.aclose_forcefully(client)

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await self._flowing.wait()
                await sink.send_all(data)
        scope.cancel()

    def hold(self) -> None:
        """Let nothing through, either way, as a network that is split; what was sent arrives after `flow`."""
        if self._flowing.is_set():
            self._flowing = trio.Event()

    def flow(self) -> None:
        """Let everything through again."""
        self._refusing = False
        self._flowing.set()

    def cut(self, *, refuse: bool = False) -> None:
        """End all connections, and new ones as well while it refuses."""
        self._refusing = refuse
        for scope in list(self._scopes):
            scope.cancel()


@attrs.define
class Hold:
    """One lead: from when to when somebody may have published by it.

    Attributes:
        until: What the elector promised last.
    """

    daemon: str
    fence: int
    begin: float
    until: float
    ended: float | None = None

    @property
    def end(self) -> float:
        return self.until if self.ended is None else min(self.until, self.ended)


class Daemon(Lead):
    """The daemon's side of the elector: the real one, which also keeps what it was told."""

    def __init__(self, name: str, settings: KubernetesSettings, holds: list[Hold]) -> None:
        super().__init__("kubernetes", identity=f"{name}:1:{secrets.token_hex(3)}")
        self.name = name
        self.settings = settings
        self.network: Network = None  # type: ignore[assignment]  # set before it runs
        self.holds = holds
        self.scope = trio.CancelScope()
        self.stopped = trio.Event()
        self._hold: Hold | None = None

    def gained(self, fence: int, *, until: float) -> None:
        super().gained(fence, until=until)
        if self.leads:
            self._hold = Hold(self.name, fence, time.monotonic(), until)
            self.holds.append(self._hold)

    def renewed(self, *, until: float) -> None:
        super().renewed(until=until)
        if self._hold is not None and self.leads:
            self._hold.until = self.lease.until

    def lost(self, reason: str) -> None:
        led = self._leads
        super().lost(reason)
        if led and self._hold is not None:
            self._hold.ended = time.monotonic()
            self._hold = None

    async def stand(self) -> None:
        """Run the elector, and anew after each lead, as the daemon does."""
        with self.scope:
            while True:
                async with trio.open_nursery() as standing:
                    standing.start_soon(run, self.settings, self)
                    await self.won()
                    await self.over()
                    standing.cancel_scope.cancel()
        self.stopped.set()

    async def stop(self) -> None:
        """End the lead in good order, as the daemon does: nothing is published any more, then the elector ends."""
        self.lost("stopped")
        self.scope.cancel()
        await self.stopped.wait()

    async def crash(self) -> None:
        """Be gone from the network without a word."""
        self.network.cut(refuse=True)
        self._hold = None  # what was promised stands
        self.scope.cancel()
        await self.stopped.wait()

    async def wins(self, within_s: float = 10.0) -> float:
        """Wait until it leads; return how long that took."""
        began = time.monotonic()
        with trio.fail_after(within_s):
            await self.won()
        return time.monotonic() - began


class Http:
    """Plain requests to the API server, by somebody."""

    def __init__(self, access: Access) -> None:
        token = access.read_token()
        self._http = httpx.AsyncClient(
            base_url=access.server,
            verify=access.tls(),
            headers={"Authorization": f"Bearer {token}"} if token else {},
            trust_env=False,
            timeout=10,
        )

    async def ask(
        self, method: str, path: str, body: Any = None, *, token: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Return the code and the JSON of an answer; with another token than the own one, "" for none."""
        request = self._http.build_request(method, path, json=body)
        if token is not None:
            del request.headers["Authorization"]
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        response = await self._http.send(request)
        return response.status_code, response.json()

    async def close(self) -> None:
        await self._http.aclose()


class Cluster:
    """An API server, and files that tell the way to it.

    Attributes:
        double: The double; None if it is a real one.
        namespace: Of the Leases.
    """

    def __init__(self, folder: Path, double: KubeApi | None) -> None:
        self.folder = folder
        self.double = double
        self.namespace = "default"
        self._numbers = itertools.count()
        self._leases: list[str] = []
        self._open: list[Http] = []

    @property
    def address(self) -> tuple[str, int]:
        if self.double is not None:
            return self.double.host, self.double.port
        parts = urlsplit(from_kubeconfig([Path(REAL)], "admin").server)
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port

    def lease(self) -> str:
        """Return a name that no Lease has."""
        name = f"t-{secrets.token_hex(6)}"
        self._leases.append(name)
        return name

    def file(self, who: str, *, port: int | None = None) -> Path:
        """Write a kubeconfig for somebody, by way of a proxy if its port is given."""
        path = self.folder / f"{who}-{next(self._numbers)}.kubeconfig"
        host, own = self.address
        if self.double is not None:
            token = next(t for t, user in TOKENS.items() if user == who)
            path.write_text(kubeconfig(f"http://127.0.0.1:{port or own}", user={"token": token}))
            return path
        content = yaml.safe_load(Path(REAL).read_text())
        content["current-context"] = who
        for entry in content["clusters"]:
            entry["cluster"]["server"] = f"https://{host}:{own}"
            if port is not None:
                entry["cluster"]["server"] = f"https://127.0.0.1:{port}"
        path.write_text(yaml.safe_dump(content))
        return path

    def http(self, who: str = "admin") -> Http:
        """Return plain requests as somebody."""
        self._open.append(Http(from_kubeconfig([self.file(who)])))
        return self._open[-1]

    def path(self, name: str = "", namespace: str = "") -> str:
        """Return the path of a Lease, or of all of them."""
        base = f"/apis/{GROUP}/v1/namespaces/{namespace or self.namespace}/leases"
        return f"{base}/{name}" if name else base

    def freeze(self) -> None:
        """Stop the API server's process, or what comes next to that."""
        if self.double is not None:
            self.double.freeze()
        elif REAL_PID:
            os.kill(REAL_PID, signal.SIGSTOP)
        else:
            pytest.skip("PRICEFEEDD_KUBE_APISERVER_PID is not set")

    def thaw(self) -> None:
        """Let it go on."""
        if self.double is not None:
            self.double.thaw()
        elif REAL_PID:
            os.kill(REAL_PID, signal.SIGCONT)

    async def tidy(self) -> None:
        """Leave nothing behind."""
        self.thaw()
        if self.double is None:
            http = self.http()
            for name in self._leases:
                await http.ask("DELETE", self.path(name))
        for http in self._open:
            await http.close()


@pytest.fixture
async def cluster(nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Return an API server: the double, unless the environment names a real one."""
    double = None
    if not REAL:
        double = KubeApi(tokens=TOKENS)
        double.rights.update(RIGHTS)
        await nursery.start(double.run)
    made = Cluster(tmp_path, double)
    yield made
    await made.tidy()


@pytest.fixture
def double(cluster: Cluster) -> KubeApi:
    """Return the double; what needs it cannot be had from a real server."""
    if cluster.double is None:
        pytest.skip("a fault that only the double has")
    return cluster.double


class Election:
    """Daemons that stand for one Lease, and what becomes of it."""

    def __init__(self, cluster: Cluster, nursery: trio.Nursery) -> None:
        self.cluster = cluster
        self.lease = cluster.lease()
        self.holds: list[Hold] = []
        self.daemons: list[Daemon] = []
        self._nursery = nursery

    async def stand(self, name: str, *, who: str = "elector", **settings: Any) -> Daemon:
        """Begin a daemon with a network of its own."""
        network = Network(*self.cluster.address)
        await self._nursery.start(network.run)
        settings.setdefault("kubeconfig", str(self.cluster.file(who, port=network.port)))
        daemon = Daemon(name, KubernetesSettings(lease=self.lease, **settings), self.holds)
        daemon.network = network
        self.daemons.append(daemon)
        self._nursery.start_soon(daemon.stand)
        return daemon

    async def winner(self, *among: Daemon, within_s: float = 10.0) -> Daemon:
        """Wait until one of them leads."""
        found: list[Daemon] = []

        async def wait(daemon: Daemon, scope: trio.CancelScope) -> None:
            await daemon.won()
            found.append(daemon)
            scope.cancel()

        with trio.fail_after(within_s):
            async with trio.open_nursery() as nursery:
                for daemon in among or self.daemons:
                    nursery.start_soon(wait, daemon, nursery.cancel_scope)
        return found[0]

    def check(self) -> None:
        """Assert that nobody led while another one did, and that each lead had a greater fence."""
        for before, after in itertools.pairwise(self.holds):
            assert before.end <= after.begin, (before, after)
            assert before.fence < after.fence, (before, after)


@pytest.fixture
async def election(cluster: Cluster, nursery: trio.Nursery) -> AsyncIterator[Election]:
    """Return an election without candidates, for a Lease that nobody holds; at the end it must have been a good one."""
    made = Election(cluster, nursery)
    http = cluster.http()
    lease = {"apiVersion": f"{GROUP}/v1", "kind": "Lease", "metadata": {"name": made.lease}}
    # As somebody left it who gave it back: where there is none, it is looked for it for as long as a lead may last.
    code, _ = await http.ask("POST", cluster.path(), {**lease, "spec": {"leaseDurationSeconds": 1}})
    assert code == 201
    yield made
    cluster.thaw()
    for daemon in made.daemons:
        daemon.network.cut(refuse=True)  # nothing needs to be given back any more
    for daemon in made.daemons:
        daemon.scope.cancel()
    made.check()


@pytest.fixture
def when() -> Callable[..., Awaitable[None]]:
    """Return a function that waits until something is true that has no event."""

    async def wait(condition: Callable[[], object], within_s: float = 10.0) -> None:
        with trio.fail_after(within_s):
            while not condition():  # noqa: ASYNC110  # see above
                await trio.sleep(0.005)

    return wait


@pytest.fixture
def measured() -> Callable[[Mapping[str, float]], None]:
    """Return a function that says what was measured; shown with `pytest -s`."""

    def tell(figures: Mapping[str, float]) -> None:
        print("\n", {name: round(value, 3) for name, value in figures.items()})

    return tell
