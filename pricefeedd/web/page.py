"""The status page at `/`: a shell that holds nothing, and the modules, styles and icons that it is made of.

The page reads the daemon as any client would, over `/ws` and the paths of HTTP, and shows a key where one is needed. So
what is served here is the same for everybody and needs none.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

import attrs
from quart import Quart, Response, request
from werkzeug.exceptions import NotFound

#: Our own files and our own addresses, and nothing else: no script or style in the text, no form that is sent.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; font-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

#: What stands in the shell for the name of this build.
_BUILD: Final = "@BUILD@"

#: Of the name of any build, ours or another's.
LONGEST_BUILD = 64

#: The name of a build is in each address, so what is found there never changes.
_FOREVER: Final = "public, max-age=31536000, immutable"

_KINDS: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}

#: Paths that begin so are open to anybody, as `/` is.
STATIC: Final = "/static/"


@attrs.frozen(kw_only=True)
class Asset:
    """One file of the page.

    Attributes:
        kind: Its content type.
        data: What is in it.
        packed: The same for those who take gzip: a phone far away has a third to load.
    """

    kind: str
    data: bytes
    packed: bytes


@attrs.frozen(kw_only=True)
class Assets:
    """All that the page is made of.

    Attributes:
        build: A name for just these contents.
        shell: The page's HTML.
        files: What it loads, by name.
    """

    build: str
    shell: bytes
    files: dict[str, Asset]


@cache
def assets() -> Assets:
    """Return what the page is made of; read once, from the installed package."""
    found = sorted(files("pricefeedd.web").joinpath("static").iterdir(), key=lambda entry: entry.name)
    texts = {entry.name: entry.read_bytes() for entry in found if entry.is_file()}
    digest = hashlib.sha256()
    for name, data in texts.items():
        digest.update(b"%s %d " % (name.encode(), len(data)) + data)
    build = digest.hexdigest()[:12]
    shell = texts.pop("index.html").replace(_BUILD.encode(), build.encode())
    made = {
        name: Asset(kind=_KINDS[name.rpartition(".")[2]], data=data, packed=gzip.compress(data, mtime=0))
        for name, data in texts.items()
    }
    return Assets(build=build, shell=shell, files=made)


class Page:
    """The handlers."""

    def add_routes(self, app: Quart) -> None:
        """Add the paths to the app."""
        app.add_url_rule("/", "page", self.page)
        app.add_url_rule(f"{STATIC}<build>/<name>", "static_file", self.static_file)

    async def page(self) -> Response:
        """Hand out the shell."""
        found = assets()
        headers = {
            "Cache-Control": "no-cache",  # it may be kept, but whether it is still the one is asked each time
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "Referrer-Policy": "no-referrer",  # a key may be in the address
        }
        response = Response(found.shell, headers=headers, content_type="text/html; charset=utf-8")
        response.set_etag(found.build)
        return await response.make_conditional(request)

    async def static_file(self, build: str, name: str) -> Response:
        """Hand out a file that the shell names. A shell of another build is given the present one, and may not keep it."""
        found = assets()
        asset = found.files.get(name)
        if asset is None or len(build) > LONGEST_BUILD:
            raise NotFound
        packed = request.accept_encodings.quality("gzip") > 0
        headers = {"Vary": "Accept-Encoding"}
        if packed:
            headers["Content-Encoding"] = "gzip"
        if build == found.build:
            headers["Cache-Control"] = _FOREVER
        data = asset.packed if packed else asset.data
        return Response(data, headers=headers, content_type=asset.kind)
