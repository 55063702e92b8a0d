"""How large a member's database may become, which etcd tells among its metrics only.

They are read over plain HTTP at the endpoint itself. A newcomer's mistake: taking etcd's
default for what is not known. A member that serves its metrics elsewhere
(`--listen-metrics-urls`), or that has no quota, is not warned of before it is full.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from urllib.parse import urlsplit

from scheduler.store.etcd.options import EtcdOptions

BYTES_MAX = 4 * 1024 * 1024
"""Of the page: a member under load has some 100 kB."""

_LINE = re.compile(rb"^etcd_server_quota_backend_bytes (\S+)\s*$", re.MULTILINE)


async def quota_bytes(url: str, options: EtcdOptions, seconds: float) -> int:
    """The quota of the member at this endpoint; 0 when it has none, or does not say."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(seconds):
            page = await _page(parts.hostname or "", parts.port or 2379, _tls(options))
    except (TimeoutError, OSError, ValueError):  # an ssl.SSLError is an OSError
        return 0
    return quota_in(page)


def quota_in(page: bytes) -> int:
    """The quota that a page of metrics names, in bytes; 0: none."""
    found = _LINE.search(page)
    try:
        return max(0, int(float(found[1]))) if found is not None else 0
    except (ValueError, OverflowError):
        return 0


async def _page(host: str, port: int, context: ssl.SSLContext | None) -> bytes:
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        # HTTP/1.0: the answer ends with the connection, and is not cut into chunks.
        writer.write(f"GET /metrics HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
        await writer.drain()
        page = bytearray()
        while len(page) < BYTES_MAX and (piece := await reader.read(65_536)):
            page += piece
        return bytes(page)
    finally:
        writer.close()


def _tls(options: EtcdOptions) -> ssl.SSLContext | None:
    """As in our calls: its certificate is checked, and ours is shown. Raises OSError."""
    if not options.is_tls:
        return None
    context = ssl.create_default_context(cafile=options.ca_file or None)
    if options.cert_file:
        context.load_cert_chain(options.cert_file, options.key_file)
    return context
