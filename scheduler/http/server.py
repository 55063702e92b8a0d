"""The scheduler's HTTP pages: metrics, health, version, and service discovery.

Reads only, on a port of its own, so that a scraper can neither change anything nor get in
the way of agents. The exposition is made in one piece on the event loop: it is bounded by
what the cluster has and asked for every few seconds. What losses would cost is brought up to
date before, node by node (`losses`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from scheduler.cluster.snapshot import Snapshot
from scheduler.http import views
from scheduler.http.losses import Losses

NOT_LEADING = "this scheduler does not lead; ask the leader"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the pages are made of."""

    registry: CollectorRegistry
    standing: Callable[[], views.Standing]
    snapshot: Callable[[], Snapshot | None]  # None: this scheduler does not lead
    checks: Callable[[], Iterable[tuple[str, bool, str]]]


class _StateCollector(Collector):
    """Turns a snapshot into metrics when somebody scrapes."""

    def __init__(self, source: Source, losses: Losses) -> None:
        self._source = source
        self._losses = losses

    def describe(self) -> list[Metric]:
        return []  # registering must not look at a snapshot

    def collect(self) -> Iterator[Metric]:
        standing = self._source.standing()
        for family in views.families(standing, self._source.snapshot(), self._losses.found):
            kind = CounterMetricFamily if family.is_counter else GaugeMetricFamily
            metric = kind(family.name, family.help, labels=family.labels)
            for labels, value in family.samples:
                metric.add_metric(labels, value)
            yield metric
        for each in views.histograms(standing):
            yield HistogramMetricFamily(
                each.name, each.help, buckets=each.buckets, sum_value=each.sum_seconds
            )


class HttpServer:
    """The pages, served."""

    def __init__(self, source: Source) -> None:
        """Nothing listens before `start`."""
        self._source = source
        self._losses = Losses(source.snapshot, lambda: source.standing().commits)
        source.registry.register(_StateCollector(source, self._losses))
        ProcessCollector(registry=source.registry)
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/livez", self._livez)
        application.router.add_get("/healthz", self._livez)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/version", self._version)
        application.router.add_get("/sd/prometheus", self._targets)
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=1.0
        )

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, reuse_port=False)
        await site.start()
        address: Any = self._runner.addresses[0]
        return int(address[1])

    async def close(self) -> None:
        """Stop listening and end what is being answered."""
        await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        await self._losses.refresh()
        body = generate_latest(self._source.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        status, text = views.readiness(self._source.checks(), verbose="verbose" in request.query)
        return web.Response(status=status, text=text)

    async def _version(self, _: web.Request) -> web.Response:
        standing = self._source.standing()
        return web.json_response({"version": standing.version, "store": standing.store})

    async def _targets(self, _: web.Request) -> web.Response:
        snapshot = self._source.snapshot()
        if snapshot is None:
            # An error makes Prometheus keep the targets that it has; an empty list would not.
            return web.Response(status=503, text=NOT_LEADING)
        return web.json_response(views.targets(snapshot))
