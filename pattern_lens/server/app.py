"""The live server: requests in, answers of `resources` out.

The rule: no file is read and nothing is computed in the event loop, and no more than a few answers are made at once,
so that memory stays bounded whoever asks for whatever.
"""

from __future__ import annotations

import os
import threading
import zlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from pattern_lens.errors import (
    FileGoneError,
    PatternLensError,
    ReplacedFileError,
)
from pattern_lens.server import model_answers, resources
from pattern_lens.server.answers import JSON, Answer, json_bytes
from pattern_lens.server.figure_answers import is_zipped, unpacked
from pattern_lens.server.guard import FOREIGN_POLICY, HEADERS, Guard
from pattern_lens.server.pages import SHELL, VIEWS, Application, Page, policy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from pattern_lens.server.files import ServedFiles

NOT_MODIFIED, NOT_FOUND, GONE, BROKEN = 304, 404, 410, 500
_AT_ONCE: Final = max(2, min(os.cpu_count() or 2, 8))
_SLOW_AT_ONCE: Final = 4
_WORTH_COMPRESSING: Final = 1000
_FOREVER: Final = "public, max-age=31536000, immutable"
_ASK: Final = "no-cache"


@dataclass(frozen=True)
class Made:
    """A response before it is one of a framework."""

    status: int
    body: bytes
    headers: dict[str, str]

    def response(self) -> Response:
        """As Starlette sends it."""
        return Response(self.body, self.status, self.headers)


def application(files: ServedFiles, host: str, *, pages: Application | None = None) -> ASGIApp:
    """The ASGI application.

    Parameters
    ----------
    files
        What is served; closed when the application ends.
    host
        What the server is bound to.
    """
    pages = pages or Application()
    limiters: dict[bool, CapacityLimiter] = {}

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001
        threading.Thread(target=_warm, args=(files, pages), daemon=True).start()
        try:
            yield
        finally:
            files.close()

    async def made(make: Callable[[], Made], *, is_slow: bool = False) -> Response:
        # what waits for a model leaves the others their places
        if is_slow not in limiters:
            limiters[is_slow] = CapacityLimiter(_SLOW_AT_ONCE if is_slow else _AT_ONCE)
        return (await to_thread.run_sync(make, limiter=limiters[is_slow])).response()

    async def api(request: Request) -> Response:
        is_slow = resources.is_slow(_address(request))
        return await made(lambda: _api(files, request), is_slow=is_slow)

    async def page(request: Request) -> Response:
        name = request.url.path.removeprefix("/") or SHELL
        return await made(lambda: _page(pages.page(name), request))

    async def static(request: Request) -> Response:
        return await made(lambda: _static(pages, request))

    async def nothing(request: Request, _err: Exception | None = None) -> Response:
        return refused(NOT_FOUND, resources.nothing_at(request.url.path.lstrip("/"))).response()

    async def broken(request: Request, _err: Exception) -> Response:  # noqa: ARG001
        return refused(
            BROKEN, "this answer could not be made: the server's terminal says why"
        ).response()

    routes = [
        Route("/api/{address:path}", api),
        Route("/static/{name:path}", static),
        *(Route(path, page) for path in ("/", *(f"/{name}" for name in VIEWS))),
    ]
    app = Starlette(
        routes=routes, lifespan=lifespan, exception_handlers={NOT_FOUND: nothing, Exception: broken}
    )
    return Guarded(app, Guard(host))


def _warm(files: ServedFiles, pages: Application) -> None:
    """Make what the first page asks for, while a browser is being opened."""
    model_answers.colours().make()
    for name in VIEWS:
        pages.page(name)
    for file in pages.files().values():
        _ = file.zipped
    files.index()


class Guarded:
    """An application behind a guard."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        target = scope.get("raw_path", b"").decode("latin-1") + scope["query_string"].decode(
            "latin-1"
        )
        found = self._guard.refusal(scope["method"], target, headers)
        app = self._app if found is None else refused(*found).response()
        await app(scope, receive, send)


def _address(request: Request) -> str:
    """What stands behind ``/api/``."""
    return str(request.scope["path"]).removeprefix("/api/")


def _api(files: ServedFiles, request: Request) -> Made:
    address = _address(request)
    try:
        try:
            return sent(_found(files, address, request), request)
        except ReplacedFileError:
            files.look_again()  # replaced between two looks: what is there now is answered
            return sent(_found(files, address, request), request)
    except (PatternLensError, OSError) as err:
        status, sentence = _said(err)
        return refused(status, files.without_folders(sentence))


def _said(err: Exception) -> tuple[int, str]:
    """What is answered instead of what could not be."""
    if isinstance(err, resources.UNKNOWN):
        return NOT_FOUND, str(err)
    if isinstance(err, FileGoneError):
        return GONE, str(err)
    if isinstance(err, PatternLensError):
        return BROKEN, str(err)
    why = err.strerror if isinstance(err, OSError) else None
    return BROKEN, f"the file could not be read: {why or type(err).__name__}"


def _found(files: ServedFiles, address: str, request: Request) -> Answer:
    if address == "index.json":
        return files.index()
    if address == "colours.json":
        return model_answers.colours()
    model, rest = resources.split(address)
    return resources.answer(files.file(model).view(), model, rest, request.query_params, files.live)


def _page(page: Page, request: Request) -> Made:
    answer = Answer(lambda: page.data, "text/html; charset=utf-8", page.tag, is_compressible=True)
    made = sent(answer, request)
    return Made(
        made.status,
        made.body,
        {
            **made.headers,
            "Content-Security-Policy": f"{policy(page.script_hashes)}; frame-ancestors 'none'",
        },
    )


def _static(pages: Application, request: Request) -> Made:
    file = pages.files().get(request.path_params["name"])
    if file is None:
        return refused(NOT_FOUND, resources.nothing_at(request.url.path.lstrip("/")))
    answer = Answer(lambda: file.zipped, file.media_type, file.tag, encoding="gzip")
    is_of_this = request.query_params.get("v") == file.tag[:8]
    return sent(answer, request, cache=_FOREVER if is_of_this else _ASK)


# --- answers as HTTP -----------------------------------------------------------------------------


def sent(answer: Answer, request: Request, *, cache: str = _ASK) -> Made:
    """An answer as a response: 304 where the client has it, compressed where that is worth it."""
    headers = {
        **HEADERS,
        "ETag": f'W/"{answer.tag}"',
        "Cache-Control": cache,
        "Vary": "Accept-Encoding",
    }
    if answer.is_foreign:
        headers["Content-Security-Policy"] = FOREIGN_POLICY
    if _has(request.headers.get("if-none-match", ""), answer.tag):
        return Made(NOT_MODIFIED, b"", headers)
    body = answer.make()
    headers["Content-Type"] = answer.media_type
    takes_gzip = "gzip" in request.headers.get("accept-encoding", "")
    if answer.encoding == "gzip" and takes_gzip and is_zipped(body):
        headers["Content-Encoding"] = "gzip"
    elif answer.encoding == "gzip":
        body = unpacked(body)
    elif answer.is_compressible and takes_gzip and len(body) > _WORTH_COMPRESSING:
        body = _smaller(body, answer, headers)
    return Made(200, body, headers)


def _has(if_none_match: str, tag: str) -> bool:
    tags = [one.strip().removeprefix("W/").strip('"') for one in if_none_match.split(",")]
    return tag in tags or "*" in tags


def _smaller(body: bytes, answer: Answer, headers: dict[str, str]) -> bytes:
    is_text = answer.media_type.startswith(("text/", JSON))
    deflate = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS, 9)
    if not is_text:
        deflate = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    packed = deflate.compress(body) + deflate.flush()
    if len(packed) >= 0.95 * len(body):
        return body
    headers["Content-Encoding"] = "gzip"
    return packed


def refused(status: int, sentence: str) -> Made:
    """A sentence instead of an answer."""
    headers = {**HEADERS, "Content-Type": JSON, "Cache-Control": "no-store"}
    if status == 405:
        headers["Allow"] = "GET, HEAD"
    return Made(status, json_bytes({"error": sentence}), headers)
