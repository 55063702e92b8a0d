"""What the scheduler counts as it goes: instruments on a registry of their own.

Names follow Prometheus' conventions and, for gRPC, those of go-grpc-middleware, so that
ready-made dashboards work. What follows from the cluster's state is not counted here but
read off a snapshot when somebody scrapes (`scheduler.http.views`).
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

# A `_created` series for each other one doubles a page that nobody asked for.
disable_created_metrics()  # type: ignore[no-untyped-call]

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The instruments of one process."""

    def __init__(self) -> None:
        """Nothing counted yet."""
        self.registry = CollectorRegistry()
        self.grpc_started = Counter(
            "grpc_server_started",
            "RPCs that began.",
            ("grpc_service", "grpc_method", "grpc_type"),
            registry=self.registry,
        )
        self.grpc_handled = Counter(
            "grpc_server_handled",
            "RPCs that ended, by status code.",
            ("grpc_service", "grpc_method", "grpc_type", "grpc_code"),
            registry=self.registry,
        )
        self.grpc_handling = Histogram(
            "grpc_server_handling_seconds",
            "How long unary RPCs took.",
            ("grpc_service", "grpc_method", "grpc_type"),
            buckets=_FAST,
            registry=self.registry,
        )
        self.store_requests = Histogram(
            "homeport_store_request_duration_seconds",
            "How long the store took.",
            ("op", "backend"),
            buckets=_FAST,
            registry=self.registry,
        )
        self.store_failures = Counter(
            "homeport_store_request_failures",
            "Requests to the store that failed, by kind of failure.",
            ("op", "backend", "failure"),
            registry=self.registry,
        )
        self.store_member_up = Gauge(
            "homeport_store_member_up",
            "Whether a member of etcd serves and knows a leader.",
            ("member",),
            registry=self.registry,
        )
        self.store_size = Gauge(
            "homeport_store_size_bytes",
            "Size of a member's database file.",
            ("member",),
            registry=self.registry,
        )
        self.store_used = Gauge(
            "homeport_store_used_bytes",
            "What of a member's database file is in use.",
            ("member",),
            registry=self.registry,
        )
        self.store_quota = Gauge(
            "homeport_store_quota_bytes",
            "What a member's database file may grow to, where it says so.",
            ("member",),
            registry=self.registry,
        )
        self.store_full = Gauge(
            "homeport_store_full",
            "Whether etcd refuses writes for lack of space (alarm NOSPACE).",
            registry=self.registry,
        )
        self.store_maintenance = Counter(
            "homeport_store_maintenance",
            "Compactions, defragmentations and disarmed alarms by this scheduler.",
            ("action",),
            registry=self.registry,
        )
