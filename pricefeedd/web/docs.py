"""`/docs`: the two documents as one page for people, made here, with nothing fetched and no script."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final
from urllib.parse import quote

from quart import Quart, Response, request

from pricefeedd.web import asyncapi, openapi
from pricefeedd.web.daemon import Daemon
from pricefeedd.web.fields import SAFE_INTEGER
from pricefeedd.web.http import Query, asked, respond
from pricefeedd.web.messages import CLOSE_CODES

_STYLE: Final = """
:root{--ink:#1c1e21;--soft:#5f6670;--line:#dfe3e8;--page:#fff;--well:#f5f6f8;--mark:#0a58a6;--tag:#e4eef9}
@media(prefers-color-scheme:dark){:root{--ink:#e4e6eb;--soft:#a3aab5;--line:#34373b;--page:#17181a;--well:#202225;
--mark:#7db8f5;--tag:#1f3348}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;scroll-padding-top:1rem}
body{font:16px/1.55 system-ui,sans-serif;margin:0;color:var(--ink);background:var(--page);overflow-wrap:anywhere}
a{color:var(--mark);text-decoration:none}a:hover{text-decoration:underline}
nav{padding:1rem;background:var(--well);border-bottom:1px solid var(--line)}
nav b{display:block;margin:.6rem 0 .2rem;font-size:.8rem;color:var(--soft)}
nav a{display:inline-block;margin:.1rem .8rem .1rem 0;font:14px/1.7 ui-monospace,monospace}
main{max-width:54rem;padding:1rem;margin:0 auto}
h1{font-size:1.7rem;margin:.5rem 0}h2{margin:3rem 0 .5rem;border-bottom:2px solid var(--line)}
h3{margin:2.2rem 0 .3rem;font:600 1.05rem/1.4 ui-monospace,monospace}h4{margin:1rem 0 .2rem;font-size:.9rem;color:var(--soft)}
h3 span{font:600 .72rem/1 system-ui,sans-serif;background:var(--tag);color:var(--mark);border-radius:.3rem;
padding:.25rem .45rem;margin-right:.5rem;vertical-align:.1rem}
p{margin:.4rem 0}code{font:.9em ui-monospace,monospace;background:var(--well);border-radius:.2rem;padding:.1em .25em}
pre{font:13.5px/1.5 ui-monospace,monospace;background:var(--well);border:1px solid var(--line);border-radius:.4rem;
padding:.7rem .9rem;margin:.4rem 0;white-space:pre-wrap}
table{border-collapse:collapse;width:100%;margin:.3rem 0 .8rem;font-size:.94rem}
th,td{text-align:left;vertical-align:top;overflow-wrap:break-word;padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--line)}
th{font-size:.8rem;color:var(--soft);font-weight:600}td:nth-child(2){min-width:6rem}td:first-child{white-space:nowrap;font-family:ui-monospace,monospace}
td small{color:var(--soft)}
details{margin:.4rem 0}summary{cursor:pointer;color:var(--mark)}
@media(min-width:70rem){nav{position:fixed;top:0;bottom:0;left:0;width:16rem;overflow:auto;border:0;
border-right:1px solid var(--line)}nav a{display:block;margin:0}main{margin-left:18rem;padding-right:2rem}}
@media(max-width:40rem){tr{display:block;padding:.5rem 0;border-bottom:1px solid var(--line)}tr:has(th){display:none}
td{display:block;padding:0;border:0}td:nth-child(2){color:var(--soft);font-size:.85rem}}
@media print{nav{display:none}main{margin:0}}
"""

_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

#: Nothing but our own style may be used by the page.
CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

_FIRST: Final = '{"op":"subscribe","id":1,"topics":["trade:*:BTC-USDT"]}'

#: An example longer than this is folded away.
_LONG: Final = 900


def _prose(text: str) -> str:
    """Return text as HTML; what stands in backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _json(value: object) -> str:
    """Return JSON for people: short things on one line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else _spread(value, 0)


def _spread(value: object, depth: int) -> str:
    one_line = json.dumps(value, ensure_ascii=False)
    if len(one_line) + 2 * depth <= 96 or not isinstance(value, dict | list) or not value:
        return one_line
    pad, end = "  " * (depth + 1), "  " * depth
    if isinstance(value, dict):
        rows = [f"{json.dumps(key)}: {_spread(each, depth + 1)}" for key, each in value.items()]
        return "{\n" + ",\n".join(pad + row for row in rows) + f"\n{end}}}"
    return "[\n" + ",\n".join(pad + _spread(each, depth + 1) for each in value) + f"\n{end}]"


def _example(value: object, title: str = "") -> str:
    text = value if isinstance(value, str) else _json(value)
    shown = f"<pre>{escape(text)}</pre>"
    if len(text) > _LONG:
        return f"<details><summary>{escape(title or 'Example')}</summary>{shown}</details>"
    return (f"<h4>{escape(title)}</h4>" if title else "") + shown


class _Schemas:
    """What there is to say of a schema in a table."""

    def __init__(self, shared: Mapping[str, Any]) -> None:
        self._shared = shared

    def resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the schema that is meant."""
        reference = schema.get("$ref")
        if reference is None:
            return schema
        return {**self._shared[reference.rpartition("/")[2]], **schema}

    def kind(self, schema: Mapping[str, Any]) -> str:
        """Return in a few words what it holds."""
        reference = schema.get("$ref")
        if reference is not None:
            return str(reference.rpartition("/")[2]).replace("_", " ").lower()
        if "const" in schema:
            return json.dumps(schema["const"])
        if "enum" in schema:
            return " or ".join("null" if word is None else str(word) for word in schema["enum"])
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return " or ".join(dict.fromkeys(self.kind(each) for each in schema[key]))
        kinds = schema.get("type", "any")
        words = [kinds] if isinstance(kinds, str) else kinds
        return " or ".join(self._plain(word, schema) for word in words)

    def _plain(self, kind: str, schema: Mapping[str, Any]) -> str:
        if kind == "array":
            return f"list of {self.kind(schema.get('items', {}))}"
        if kind == "integer" and schema.get("maximum", SAFE_INTEGER) < SAFE_INTEGER:
            return f"{schema['minimum']} to {schema['maximum']}"
        if kind == "object" and "properties" in schema:
            return f"object with {' and '.join(schema['properties'])}"
        return kind

    def table(self, schema: Mapping[str, Any], *, skip: Iterable[str] = (), head: str = "field") -> str:
        """Return a table of the fields of an object; empty for none."""
        required = schema.get("required", ())
        rows = []
        for name, found in schema.get("properties", {}).items():
            if name in skip:
                continue
            rows.append(self.row(name, found, required=name in required))
        if not rows:
            return ""
        return f"<table><tr><th>{escape(head)}<th>holds<th>meaning</tr>{''.join(rows)}</table>"

    def row(self, name: str, schema: Mapping[str, Any], *, required: bool) -> str:
        """Return the row of one field."""
        meant = self.resolved(schema)
        about = _prose(meant.get("description", ""))
        if "default" in meant:
            about += f" <small>Default: {escape(json.dumps(meant['default']))}.</small>"
        mark = "" if required else " <small>optional</small>"
        return f"<tr><td>{escape(name)}{mark}<td>{escape(self.kind(schema))}<td>{about}</tr>"


def curl(server: str, path: str, method: str, found: Mapping[str, Any]) -> str:
    """Return the line that asks a path for its examples."""
    given = []
    for each in found["parameters"]:
        value = each.get("example")
        if value is None:
            continue
        text = (
            ",".join(value) if isinstance(value, list) else json.dumps(value) if value is True else str(value)
        )
        if each["in"] == "path":
            path = path.replace(f"{{{each['name']}}}", quote(text))
        else:
            given.append(f"{each['name']}={quote(text, safe=':,*-_.')}")
    line = ["curl"]
    if any("text/event-stream" in answer.get("content", {}) for answer in found["responses"].values()):
        line.append("-N")
    if method != "get":
        line += ["-X", method.upper()]
    if "requestBody" in found:
        example = found["requestBody"]["content"]["application/json"]["example"]
        line += ["-H", "Content-Type: application/json", "-d", json.dumps(example)]
    return shlex.join([*line, f"{server}{path}" + (f"?{'&'.join(given)}" if given else "")])


def _paths(api: Mapping[str, Any], schemas: _Schemas) -> Iterable[str]:
    for path, methods in api["paths"].items():
        for method, found in methods.items():
            yield from _operation(api["servers"][0]["url"], path, method, found, schemas)


def _operation(
    server: str, path: str, method: str, found: Mapping[str, Any], schemas: _Schemas
) -> Iterable[str]:
    tag = escape(method.upper())
    yield f'<section id="{escape(found["operationId"])}"><h3><span>{tag}</span>{escape(path)}</h3>'
    yield f"<p>{_prose(found['summary'])}. {_prose(found.get('description', ''))}</p>"
    rows = "".join(
        schemas.row(each["name"], {**each, **each["schema"]}, required=each["required"])
        for each in found["parameters"]
    )
    if rows:
        yield f"<table><tr><th>parameter<th>holds<th>meaning</tr>{rows}</table>"
    if "requestBody" in found:
        yield schemas.table(found["requestBody"]["content"]["application/json"]["schema"], head="in the body")
    yield f"<pre>{escape(curl(server, path, method, found))}</pre>"
    good = next(answer for status, answer in found["responses"].items() if status[0] == "2")
    example = next(iter(good["content"].values())).get("example")
    if example is not None:
        yield _example(example)
    refusals = [
        f"<tr><td>{status}<td>{escape(answer['description'])}<td><code>"
        f"{escape(_json(answer['content']['application/json']['example']))}</code></tr>"
        for status, answer in found["responses"].items()
        if "example" in answer.get("content", {}).get("application/json", {}) and status[0] in "45"
    ]
    if refusals and path != "/ready":
        yield f"<details><summary>Refusals</summary><table><tr><th>status<th><th>body</tr>{''.join(refusals)}</table></details>"
    yield "</section>"


class _Sockets:
    """The part about WebSockets."""

    def __init__(self, document: Mapping[str, Any], schemas: _Schemas) -> None:
        self._document = document
        self._schemas = schemas

    def message(self, reference: Mapping[str, str]) -> Mapping[str, Any]:
        """Return the message that a reference means."""
        name = reference["$ref"].rpartition("/")[2]
        found: Mapping[str, Any] = self._document["components"]["messages"][name]
        return found

    def operations(self, channel: str, action: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Yield the operations of a channel."""
        for name, found in self._document["operations"].items():
            if found["action"] == action and found["channel"]["$ref"].endswith(f"/{channel}"):
                yield name, found

    def requests(self, channel: str, *, answers: bool) -> Iterable[str]:
        """Yield what clients may ask."""
        for name, found in self.operations(channel, "receive"):
            asked_for = self.message(found["messages"][0])
            word = name.removeprefix(f"{channel}_")
            tag = "op" if word == name else "ask"
            yield f'<section id="op-{escape(name)}"><h3><span>{tag}</span>{escape(word)}</h3>'
            yield f"<p>{_prose(found['summary'])}</p>"
            yield self._schemas.table(asked_for["payload"], skip=("op", "type"), head="key")
            yield _example(asked_for["examples"][0]["payload"], "You send")
            if answers:
                first = self.message(found["reply"]["messages"][0])
                yield _example(first["examples"][0]["payload"], "You are answered")
            yield "</section>"

    def said(self, references: Iterable[Mapping[str, str]], *, prefix: str = "") -> Iterable[str]:
        """Yield messages that come by themselves."""
        for reference in references:
            found = self.message(reference)
            name = found["name"].removeprefix(prefix) if prefix else found["name"].replace("_", " ")
            yield f'<section id="m-{escape(found["name"])}"><h3>{escape(name)}</h3>'
            yield f"<p>{_prose(found['summary'])}</p>"
            payload = found["payload"]
            data = payload["properties"].get("data", {})
            inner = data if "properties" in data else payload
            yield self._schemas.table(inner, skip=("type",), head="in data" if inner is data else "field")
            yield _example(found["examples"][0]["payload"])
            yield "</section>"

    def dialect(self, channel: str) -> Iterable[str]:
        """Yield all of a dialect."""
        found = self._document["channels"][channel]
        yield f'<h2 id="{escape(channel)}">{escape(found["address"])}: {escape(found["title"])}</h2>'
        yield f"<p>{_prose(found['description'])}</p>"
        prefix = f"{channel}_"
        yield from self.requests(channel, answers=False)
        replies = next(operation for _, operation in self.operations(channel, "receive"))["reply"]["messages"]
        yield from self.said(replies, prefix=prefix)
        for _, sent in self.operations(channel, "send"):
            yield from self.said(sent["messages"], prefix=prefix)


def _links(title: str, links: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f'<a href="#{escape(to)}">{escape(name)}</a>' for to, name in links)
    return f"<b>{escape(title)}</b>{rows}"


def render(api: Mapping[str, Any], socket: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        api: The OpenAPI document.
        socket: The AsyncAPI document.
    """
    schemas = _Schemas({**socket["components"]["schemas"], **api["components"]["schemas"]})
    sockets = _Sockets(socket, schemas)
    operations, native = socket["operations"], socket["channels"]["native"]
    dialects = [name for name in socket["channels"] if name != "native"]
    server = socket["servers"]["here"]
    url = f"{server['protocol']}://{server['host']}{native['address']}"
    data, notices = operations["data"]["messages"], operations["notices"]["messages"]
    example = sockets.message(data[0])
    envelope = {**example["payload"], "required": example["payload"]["required"]}

    def named(references: Iterable[Mapping[str, str]]) -> list[tuple[str, str]]:
        names = [sockets.message(reference)["name"] for reference in references]
        return [(f"m-{name}", name.replace("_", " ")) for name in names]

    navigation = "".join(
        (
            _links("Start", [("start", "WebSocket"), ("keys", "Keys"), ("codes", "Close codes")]),
            _links("Requests", [(f"op-{name}", name) for name, _ in sockets.operations("native", "receive")]),
            _links("Data", named(data)),
            _links("Notices", named(notices)),
            _links("Dialects", [(name, socket["channels"][name]["address"]) for name in dialects]),
            _links(
                "HTTP",
                [
                    (found["operationId"], path if method == "get" else f"{method.upper()} {path}")
                    for path, methods in api["paths"].items()
                    for method, found in methods.items()
                ],
            ),
        )
    )
    codes = "".join(
        f"<tr><td>{code}<td>{'yes' if code < 4500 else 'no'}<td>{_prose(about)}</tr>"
        for code, about in CLOSE_CODES.items()
    )
    intro = [_prose(part) for part in socket["info"]["description"].split("\n\n")[:2]]
    body = [
        f"<h1>pricefeedd {escape(socket['info']['version'])}</h1>",
        '<p>For programs: <a href="/openapi.json">openapi.json</a>, <a href="/asyncapi.json">asyncapi.json</a>. '
        'For operators: <a href="/">the status page</a>.</p>',
        f'<h2 id="start">WebSocket</h2><p>{"</p><p>".join(intro)}</p>',
        f"<pre>{escape(f'websocat {shlex.quote(url)}')}\n{escape(_FIRST)}</pre>",
        "<h3>In the URL</h3>",
        schemas.table(native["bindings"]["ws"]["query"], head="parameter"),
        '<h2 id="keys">Keys</h2><p>Where a key is needed it goes into the header <code>X-API-Key</code>, into '
        "<code>Authorization: Bearer</code>, or into the URL as <code>api_key</code>. A wrong key is refused even where "
        "none is needed.</p>",
        '<h2 id="codes">Close codes</h2><table><tr><th>code<th>come back<th>meaning</tr>',
        f"{codes}</table><h2>Requests</h2>",
        *sockets.requests("native", answers=True),
        "<h2>Data</h2><p>Every message has the same frame:</p>",
        schemas.table(envelope, skip=("data",)),
        *sockets.said(data),
        "<h2>Notices</h2><p>What concerns you alone.</p>",
        *sockets.said(notices),
        *(part for name in dialects for part in sockets.dialect(name)),
        "<h2>HTTP</h2>",
        *_paths(api, schemas),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>pricefeedd: the interface</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light '
        f'dark"><style>{_STYLE}</style></head><body><nav>{navigation}</nav><main>{"".join(body)}</main></body></html>'
    )


class Docs:
    """The handlers, over one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def add_routes(self, app: Quart) -> None:
        """Add the paths to the app."""
        app.add_url_rule("/openapi.json", "openapi", self.openapi)
        app.add_url_rule("/asyncapi.json", "asyncapi", self.asyncapi)
        app.add_url_rule("/docs", "docs", self.docs)

    def _openapi(self) -> dict[str, Any]:
        public = self._daemon.config.web.public_read
        return openapi.document(f"{request.scheme}://{_host()}", public=public)

    def _asyncapi(self) -> dict[str, Any]:
        public = self._daemon.config.web.public_read
        return asyncapi.document(_host(), secure=request.scheme == "https", public=public)

    async def openapi(self) -> Response:
        """Tell programs of the HTTP paths."""
        asked(Query)
        return respond(self._openapi())

    async def asyncapi(self) -> Response:
        """Tell programs of the WebSocket protocols."""
        asked(Query)
        return respond(self._asyncapi())

    async def docs(self) -> Response:
        """Tell people of both."""
        asked(Query)
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
        text = render(self._openapi(), self._asyncapi())
        return Response(text, headers=headers, content_type="text/html; charset=utf-8")


def _host() -> str:
    """Return where the client reached us, if it says so in a form that can stand in a URL."""
    host = request.headers.get("Host", "")
    return host if re.fullmatch(r"[\w.:\[\]-]{1,255}", host, re.ASCII) else "127.0.0.1:8765"
