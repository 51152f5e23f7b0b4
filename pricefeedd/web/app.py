"""The app: routes, who may use them, and errors as JSON."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from quart import Response, g, has_request_context, request
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIWebsocketConnection
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, RequestTimeout

from pricefeedd.web import page
from pricefeedd.web.api import Api
from pricefeedd.web.authority import ChangeRefusedError
from pricefeedd.web.balances import Balances
from pricefeedd.web.candles import Past
from pricefeedd.web.daemon import Daemon, Limits
from pricefeedd.web.dialect import Dialect, serve_connection
from pricefeedd.web.dialects.ohlcv import Ohlcv
from pricefeedd.web.dialects.pyth import Pyth
from pricefeedd.web.docs import Docs
from pricefeedd.web.explain import Explain
from pricefeedd.web.fields import BadRequest
from pricefeedd.web.http import refuse, respond
from pricefeedd.web.keys import ADMIN, READ, denial, origin_allowed, presented
from pricefeedd.web.listen import ADMIN_LISTENER
from pricefeedd.web.log import LEVEL_PATH, Log
from pricefeedd.web.log import PATH as LOG_PATH
from pricefeedd.web.readers import Readers
from pricefeedd.web.reading import Reading
from pricefeedd.web.reload import Reload
from pricefeedd.web.socket import Socket
from pricefeedd.web.sse import Streams
from pricefeedd.web.stream import Native
from pricefeedd.web.subscriptions import PATH as SUBSCRIPTIONS_PATH
from pricefeedd.web.subscriptions import Subscriptions
from pricefeedd.web.topics import Resolver
from pricefeedd.web.trace import HEADER, bind, trace_id_of

log = logging.getLogger(__name__)

#: Open to anybody: for probes, and the status page, which holds nothing before it reads the others.
_OPEN_PATHS = ("/", "/health", "/ready")

#: A key for these must have the scope `admin`, where keys are needed at all.
_ADMIN_PATHS = ("/metrics", "/status", LOG_PATH, LEVEL_PATH)

#: What is answered on standby as well: all else of the API is the leader's.
_STANDBY_PATHS = ("/api/v1/explain", "/api/v1/gaps", "/api/v1/log", "/api/v1/reload")

#: With `admin_listen` these are served only there.
_ADMIN_LISTENER_PATHS = ("/metrics", "/api")


class _WebSocket(TrioASGIWebsocketConnection):
    """A WebSocket: ours, or for Quart to say that there is nothing."""

    async def __call__(self, receive: Any, send: Any) -> None:
        assert isinstance(self.app, WebApp)
        serve = self.app.websockets.get(self.scope["path"])
        if serve is None:
            await super().__call__(receive, send)
        else:
            socket = Socket(self.scope, receive, send)
            bind(socket.trace_id)
            await serve(socket)


class WebApp(QuartTrio):
    """The Quart app with what `listen.serve` needs of it.

    Attributes:
        readers: All who read over WebSockets or Server-Sent Events.
        websockets: What serves each path.
        renew_certificate: Takes certificate and key from their files again; nothing without TLS.
    """

    asgi_websocket_class = _WebSocket
    readers: Readers
    websockets: Mapping[str, Callable[[Socket], Awaitable[None]]]
    renew_certificate: Callable[[], None] = staticmethod(lambda: None)


def create_app(daemon: Daemon, limits: Limits | None = None) -> WebApp:
    """Return the app that serves a daemon.

    Args:
        limits: Bounds of what one client may do; the defaults suit all but tests.
    """
    limits = limits or Limits()
    app = WebApp("pricefeedd", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = limits.body_bytes
    app.config["BODY_TIMEOUT"] = limits.body_s
    app.config["RESPONSE_TIMEOUT"] = None  # the writer ends a response that nobody reads
    app.readers = Readers(daemon, limits)
    resolver = Resolver(daemon.bus, daemon.directory, daemon.stats)

    dialects: dict[str, Dialect] = {
        "native": Native(daemon, app.readers, resolver),
        "pyth": Pyth(daemon),
        "ohlcv": Ohlcv(daemon, resolver),
    }

    async def read_topics(dialect: Dialect, socket: Socket) -> None:
        allowed = daemon.config.web.allowed_origins
        if not origin_allowed(socket.headers.get("Origin"), socket.headers.get("Host"), allowed):
            body = {"error": "pages of this origin may not read here", "code": "FORBIDDEN"}
            await socket.refuse(403, body)
            return
        await serve_connection(daemon, app.readers, dialect, socket)

    async def read_root(socket: Socket) -> None:
        await read_topics(dialects[daemon.config.web.root_dialect], socket)

    app.websockets = {
        "/": read_root,
        "/ws": partial(read_topics, dialects["native"]),
        "/ws/pyth": partial(read_topics, dialects["pyth"]),
        "/ws/ohlcv": partial(read_topics, dialects["ohlcv"]),
    }
    page.Page().add_routes(app)
    Api(daemon).add_routes(app)
    Reading(daemon, resolver, limits).add_routes(app)
    Past(daemon, resolver).add_routes(app)
    Explain(daemon, resolver).add_routes(app)
    Balances(daemon).add_routes(app)
    Subscriptions(daemon, limits).add_routes(app)
    Reload(daemon).add_routes(app)
    Streams(daemon, app.readers, resolver).add_routes(app)
    Log(daemon).add_routes(app)
    Docs(daemon).add_routes(app)
    _guard(app, daemon)
    _tell_errors(app)
    return app


def _guard(app: WebApp, daemon: Daemon) -> None:
    """Read each body, and ask for a key where one is needed."""

    @app.before_request
    async def trace() -> None:
        g.trace_id, g.began = trace_id_of(request.headers), time.monotonic()
        bind(g.trace_id)

    @app.before_request
    async def read_body() -> None:
        # Hypercorn's HTTP/1.1 leaves the next request of the connection unanswered if a response goes out
        # before the body has been read.
        await request.get_data()

    @app.before_request
    async def check_key() -> Response | None:
        web = daemon.config.web
        state: dict[str, Any] = request.scope.get("state", {})
        if (
            web.admin_listen
            and not state.get(ADMIN_LISTENER)
            and request.path.startswith(_ADMIN_LISTENER_PATHS)
        ):
            return respond({"error": "served on the admin listener only", "code": "NOT_FOUND"}, 404)
        if request.path in _OPEN_PATHS or request.path.startswith(page.STATIC):
            return None
        if (
            daemon.standby
            and request.path.startswith("/api/")
            and not request.path.startswith(_STANDBY_PATHS)
        ):
            waiting = respond({"error": daemon.standby, "code": "STANDBY"}, 503)
            waiting.headers["Retry-After"] = "1"
            return waiting
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            return None  # who may change something is asked there: see `authority`
        subscriptions = request.path.startswith(SUBSCRIPTIONS_PATH)
        scope = ADMIN if request.path in _ADMIN_PATHS else READ
        given = presented(request.headers, request.args)
        why = denial(web.keys, given, scope=scope, public=web.public_read)
        if why is None:
            return None
        code = "AUTHENTICATION_FAILED" if subscriptions else "UNAUTHORISED"
        refused = respond({"error": why, "code": code}, 401)
        refused.headers["WWW-Authenticate"] = "Bearer"
        return refused

    @app.after_request
    async def add_headers(response: Response) -> Response:
        origin = request.headers.get("Origin")
        allowed = daemon.config.web.allowed_origins
        if origin and allowed and origin_allowed(origin, None, allowed):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers.add("Vary", "Origin")
        response.headers["X-Content-Type-Options"] = "nosniff"
        if "trace_id" in g:
            response.headers[HEADER] = g.trace_id
            if log.isEnabledFor(logging.DEBUG):
                facts = {"method": request.method, "path": request.path[:500], "status": response.status_code}
                log.debug("request", extra=facts | {"took_s": round(time.monotonic() - g.began, 6)})
        response.headers.setdefault("Cache-Control", "no-store")
        return response


def _tell_errors(app: WebApp) -> None:
    """Say what went wrong as JSON."""

    @app.errorhandler(BadRequest)
    async def misunderstood(error: BadRequest) -> Response:
        return refuse(error)

    @app.errorhandler(ChangeRefusedError)
    async def not_allowed(error: ChangeRefusedError) -> Response:
        response = respond({"error": error.message, "code": error.code.upper()}, error.status)
        if error.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response

    @app.errorhandler(HTTPException)
    async def refused(error: HTTPException) -> Response:
        status = error.code or 500
        asked = request if has_request_context() else None
        if status == 404 and asked and asked.method == "GET" and asked.path in app.websockets:
            told = respond({"error": "a WebSocket is served here", "code": "UPGRADE_REQUIRED"}, 426)
            told.headers["Upgrade"] = "websocket"
            told.headers["Sec-WebSocket-Version"] = "13"
            return told
        why = "there is nothing here; /docs tells what there is" if status == 404 else error.description
        body = {"error": why or error.name, "code": error.name.upper().replace(" ", "_")}
        if status == 500 and "trace_id" in g:
            body["trace_id"] = g.trace_id  # with this the log is searched
        response = respond(body, status)
        for name, value in error.get_headers():
            if name.lower() not in ("content-type", "content-length"):
                response.headers[name] = value
        if isinstance(error, RequestEntityTooLarge | RequestTimeout):
            response.headers["Connection"] = "close"  # the rest of the body is still on its way
        return response
