"""A very small HTTP server for three pages that are asked for every few seconds.

GET only, one request a connection, nothing of the request is used but its path. The
scheduler has a real one; the agent's weight matters more, on a Raspberry Pi. A newcomer's
mistake: awaiting inside a page. Pages are computed from what was gathered already.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

REQUEST_BYTES_MAX = 8 * 1024
REQUEST_SECONDS = 5.0
CONNECTIONS_MAX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer."""

    body: bytes
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"


_PHRASES = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class HttpServer:
    """Serves `pages`, path by path."""

    def __init__(self, pages: Mapping[str, Callable[[], Page]]) -> None:
        self._pages = pages
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port (0 picks a free one). Raises OSError."""
        self._server = await asyncio.start_server(
            self._serve, host, port, limit=REQUEST_BYTES_MAX, backlog=CONNECTIONS_MAX
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                page, is_head = await self._answer(reader)
                writer.write(_head(page))
                if not is_head:
                    writer.write(page.body)
                await writer.drain()
        except (TimeoutError, OSError):
            pass  # whoever asked has gone
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[Page, bool]:
        if self._open > CONNECTIONS_MAX:
            return Page(status=503, body=b"too many connections\n"), False
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return Page(status=400, body=b"not a request that this server reads\n"), False
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")
        if method not in (b"GET", b"HEAD"):
            return Page(status=405, body=b"GET only\n"), False
        page = self._pages.get(path)
        if page is None:
            known = " ".join(sorted(self._pages))
            return Page(status=404, body=f"there are: {known}\n".encode()), False
        return page(), method == b"HEAD"


def _head(page: Page) -> bytes:
    lines = (
        f"HTTP/1.1 {page.status} {_PHRASES[page.status]}",
        f"Content-Type: {page.content_type}",
        f"Content-Length: {len(page.body)}",
        "Connection: close",
        "",
        "",
    )
    return "\r\n".join(lines).encode()
