"""The part of the API of Kubernetes that an election needs: to read a Lease, make it, and replace what was read."""

from __future__ import annotations

import math
import os
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import attrs
import httpx
import orjson
import trio

from pricefeedd.errors import ConfigError
from pricefeedd_kubernetes.credentials import SERVICE_ACCOUNT, Access, find
from pricefeedd_kubernetes.errors import ApiError, OutdatedError, RefusedError
from pricefeedd_kubernetes.exec import ask
from pricefeedd_kubernetes.record import Record
from pricefeedd_kubernetes.settings import KubernetesSettings

#: A token's file is read again after so long. They are changed long before the old token ends.
#: https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/
TOKEN_S = 10.0
#: Credentials that a server refused are read anew, but no more often than this.
_RELOAD_S = 1.0
#: Credentials that a program told are asked for again so long before they end.
_AHEAD_S = 60.0
#: A program that failed is run again after so long.
_EXEC_RETRY_S = 5.0


class LeaseApi:
    """One Lease at the API server. Requests take as long as they take; who calls bounds them.

    Use it as an async context manager, with `keep_credentials` in a task beside what it is used for.

    Attributes:
        namespace: The Lease's.
        name: The Lease's.
        access: The way to the server.
    """

    def __init__(
        self,
        settings: KubernetesSettings,
        environ: Mapping[str, str] = os.environ,
        *,
        account: Path = SERVICE_ACCOUNT,
        token_s: float = TOKEN_S,
    ) -> None:
        """Prepare to ask.

        Args:
            environ: Where the way to the server is looked for.
            account: Where a pod has its service account.
            token_s: How often a token's file is read.
        """
        self._settings = settings
        self._find = partial(find, settings, environ, account=account)
        self._token_s = token_s
        self.name = settings.lease
        self.namespace = settings.namespace
        self.access = Access(source="", server="")
        self._http: httpx.AsyncClient | None = None
        self._token = ""
        self._token_at = self._loaded_at = -math.inf
        self._reload = False  # what we have is to be read anew before the next request
        self._told: Access | None = None  # with newer credentials, for the next request
        self._wanted = trio.Event()  # set while a program is to tell us credentials
        self._no_credentials = ""  # why there are none yet

    async def __aenter__(self) -> LeaseApi:
        """Find the way to the server.

        Raises:
            ConfigError: There is none, or what is said of it cannot be used.
        """
        await self._load()
        self.namespace = self._settings.namespace or self.access.namespace or "default"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with trio.move_on_after(0.1, shield=True):
            await self._close()

    # --- the Lease -------------------------------------------------------------------------------------

    async def get(self) -> Record | None:
        """Return the Lease as it is now, not as some cache has it; None if there is none.

        Raises:
            ApiError: It cannot be read.
        """
        status, body = await self._ask("GET", f"/{quote(self.name)}")
        return None if status == 404 else _record(body)

    async def create(self, lease: Mapping[str, Any]) -> Record:
        """Make the Lease, and return it.

        Raises:
            OutdatedError: There is one by now.
            ApiError: It was not made, or that is not known.
        """
        status, body = await self._ask("POST", "", lease)
        if status == 409:
            raise OutdatedError(_message(body))
        if status == 404:
            raise RefusedError(f"{_message(body)}; create it, or set namespace")
        return _record(body)

    async def replace(self, lease: Mapping[str, Any]) -> Record:
        """Write the Lease, if it is still the version that this one names, and return it.

        Raises:
            OutdatedError: Somebody else wrote or deleted it since.
            ApiError: It was not written, or that is not known.
        """
        status, body = await self._ask("PUT", f"/{quote(self.name)}", lease)
        if status in (404, 409):
            raise OutdatedError(_message(body))
        return _record(body)

    async def _ask(
        self, method: str, path: str, lease: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Send a request, and return the answer's code and JSON; the code is 2xx, 404 or 409."""
        target = f"/apis/coordination.k8s.io/v1/namespaces/{quote(self.namespace)}/leases{path}"
        content = None if lease is None else orjson.dumps(lease)
        response = await self._send(method, target, content)
        if response.status_code == 401 and await self._found_newer():
            response = await self._send(method, target, content)
        code = response.status_code
        try:
            body = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            body = {"message": response.text[:200]}
        if not isinstance(body, dict):
            body = {"message": str(body)[:200]}
        if 200 <= code < 300 or (code in (404, 409) and body.get("kind") == "Status"):
            return code, body
        if code == 401:
            raise RefusedError(
                f"{self.access.server} does not know us (401): look at the credentials of {self.access.source}"
            )
        if code == 403:
            raise RefusedError(
                f"{_message(body)} (403): allow get, create and update of leases.coordination.k8s.io "
                f"in namespace {self.namespace} by a Role and a RoleBinding"
            )
        raise ApiError(
            f"{self.access.server} answered {code}: {_message(body)}", retry_after_s=_retry_after_s(response)
        )

    async def _send(self, method: str, target: str, content: bytes | None) -> httpx.Response:
        headers = {"Accept": "application/json"}
        http = await self._ready(headers)
        extensions = {"sni_hostname": self.access.server_name} if self.access.server_name else {}
        request = http.build_request(
            method,
            self.access.server + target,
            headers=headers,
            extensions=extensions,
            timeout=httpx.Timeout(None, connect=_to_connect_s()),
        )
        request.stream = _Body(content or b"")
        if content is not None:
            request.headers.update({"Content-Type": "application/json", "Content-Length": str(len(content))})
        try:
            return await http.send(request)
        except httpx.ConnectTimeout as e:
            raise ApiError(f"{self.access.server} did not answer in time") from e
        except httpx.HTTPError as e:
            self._reload = self._reload or _is_tls(e)  # the authority may have been changed
            raise ApiError(f"cannot reach {self.access.server}: {_words(e)}") from e

    # --- credentials -----------------------------------------------------------------------------------

    async def _ready(self, headers: dict[str, str]) -> httpx.AsyncClient:
        """Return the client to ask with, and add what it shows to the headers."""
        if self._told is not None:
            await self._use(self._told)
            self._told = None
        elif self._http is None or (self._reload and time.monotonic() > self._loaded_at + _RELOAD_S):
            try:
                await self._load()
            except ConfigError as e:
                raise RefusedError("; ".join(e.problems)) from e
        assert self._http is not None, "it was loaded just now"
        if self._no_credentials:
            raise RefusedError(self._no_credentials)
        await self._read_token()
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        return self._http

    async def _load(self) -> None:
        self._loaded_at = time.monotonic()
        access = await trio.to_thread.run_sync(self._find, abandon_on_cancel=True)
        if access.exec is not None:
            self._no_credentials = (
                self._no_credentials or f"exec {access.exec.command[0]} has not told anything yet"
            )
            self._wanted.set()
        await self._use(access)
        self._reload = False

    async def _use(self, access: Access) -> None:
        tls = await trio.to_thread.run_sync(access.tls, abandon_on_cancel=True)
        token = await trio.to_thread.run_sync(access.read_token, abandon_on_cancel=True)
        await self._close()
        self.access, self._token, self._token_at = access, token, time.monotonic()
        self._http = httpx.AsyncClient(
            verify=tls,
            proxy=access.proxy or None,
            auth=(access.username, access.password) if access.username else None,
            timeout=httpx.Timeout(None),  # who calls bounds it
            headers={"User-Agent": "pricefeedd"},
            follow_redirects=False,
            trust_env=False,
        )

    async def _read_token(self) -> None:
        if self.access.token_file is None or time.monotonic() < self._token_at + self._token_s:
            return
        self._token_at = time.monotonic()
        try:
            self._token = await trio.to_thread.run_sync(self.access.read_token, abandon_on_cancel=True)
        except ConfigError as e:
            if not self._token:  # the old one may do yet
                raise RefusedError("; ".join(e.problems)) from e

    async def _found_newer(self) -> bool:
        """Read the credentials that were refused anew, and return whether there are other ones now."""
        if time.monotonic() < self._loaded_at + _RELOAD_S:
            return False
        before, token = self.access, self._token
        try:
            await self._load()
        except ConfigError as e:
            raise RefusedError("; ".join(e.problems)) from e
        return self.access.exec is None and (self.access, self._token) != (before, token)

    async def keep_credentials(self) -> None:
        """Ask the program for credentials, if there is one, whenever they are wanted or about to end."""
        while True:
            await self._wanted.wait()
            access = self.access
            if access.exec is None:
                self._wanted = trio.Event()
                continue
            try:
                told = await ask(access.exec)
                newer = attrs.evolve(access, token=told.token, certificate=told.certificate, key=told.key)
                await trio.to_thread.run_sync(newer.tls, abandon_on_cancel=True)
            except (ApiError, ConfigError) as e:
                self._no_credentials = self._no_credentials and str(e)
                await trio.sleep(_EXEC_RETRY_S)
                continue
            self._told, self._no_credentials = newer, ""
            self._wanted = trio.Event()
            left_s = math.inf if told.expires is None else told.expires - time.time()
            # One that is told with little left is not asked for without a pause.
            with trio.move_on_after(max(left_s - min(_AHEAD_S, left_s / 5), _EXEC_RETRY_S)):
                await self._wanted.wait()
            self._wanted.set()

    async def _close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()


class _Body(httpx.AsyncByteStream):
    """What is sent, once. httpx's own is a generator, left to the garbage collector when a request is cancelled."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        content, self._content = self._content, b""
        if not content:
            raise StopAsyncIteration
        return content


def _to_connect_s() -> float:
    """Return how long a connection may take to come about: less than whoever calls waits.

    A TLS handshake that httpx gives up is closed in good order; one that is cancelled leaves its socket to the garbage
    collector, which closes it as well, but warns of it.
    """
    return max(0.0, 0.75 * (trio.current_effective_deadline() - trio.current_time()))


def _record(body: dict[str, Any]) -> Record:
    try:
        return Record.read(body)
    except ValueError as e:
        raise ApiError(str(e)) from e


def _message(body: Mapping[str, Any]) -> str:
    return str(body.get("message") or "no reason given")


def _retry_after_s(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else None


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, trio.Cancelled):  # which only led to where it happened
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found


def _is_tls(error: BaseException) -> bool:
    return any(isinstance(cause, ssl.SSLError) for cause in _causes(error))


def _words(error: BaseException) -> str:
    """Return the first text in a chain of errors; httpx hides what TLS had to say in its causes."""
    return next((str(cause) for cause in _causes(error) if str(cause)), type(error).__name__)
