"""A real Prometheus that scrapes what a test tells it to, for tests of metrics and discovery."""

import json
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.testbed.ledger import current_run
from tests.testbed.process import Daemon, free_port


class Prometheus:
    """One server with `config`, the text of a prometheus.yml; its data is gone when it stops.

    A short `scrape_interval` (1s) keeps the test short. Rules that the configuration names by a
    relative path are looked for in `directory`, which exists before `start()`.
    """

    def __init__(self, config: str, *, host: str = "127.0.0.1") -> None:
        self._component = current_run().component("prometheus")
        self.directory: Path = self._component.directory
        (self.directory / "prometheus.yml").write_text(config)
        self._host = host
        self.port = free_port(host)
        self.daemon = Daemon(
            [
                "prometheus",
                f"--config.file={self.directory}/prometheus.yml",
                f"--storage.tsdb.path={self.directory}/data",
                f"--web.listen-address={self.address}",
                "--log.level=warn",
            ],
            component=self._component,
        )

    @property
    def address(self) -> str:
        """`host:port` of its API and page."""
        return f"{self._host}:{self.port}"

    def start(self) -> Self:
        """Start it, and return when it is ready to answer queries."""
        self.daemon.start()
        self.daemon.wait_for(
            lambda: self._get("/-/ready") is not None, "being ready", deadline_seconds=40
        )
        return self

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector of a PromQL expression: [{"metric": {…}, "value": [when, "1"]}].

        urllib.error.HTTPError if Prometheus cannot parse it.
        """
        answer = self._json("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def value(self, expression: str) -> float | None:
        """The one value of an expression, or None if nothing matches it yet."""
        result = self.query(expression)
        return float(result[0]["value"][1]) if result else None

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes now, with labels, health and the last error."""
        active: list[dict[str, Any]] = self._json("/api/v1/targets")["data"]["activeTargets"]
        return active

    def rules(self) -> list[dict[str, Any]]:
        """The rule groups that it has loaded."""
        groups: list[dict[str, Any]] = self._json("/api/v1/rules")["data"]["groups"]
        return groups

    def wait_for(self, expression: str, *, deadline_seconds: float = 30) -> list[dict[str, Any]]:
        """The expression's result once it is not empty; TimeoutError as Daemon.wait_for."""
        found: list[dict[str, Any]] = []

        def answered() -> bool:
            found[:] = self.query(expression)
            return bool(found)

        self.daemon.wait_for(
            answered, f"an answer to {expression}", deadline_seconds=deadline_seconds
        )
        return found

    def stop(self) -> None:
        """End it and delete its data."""
        self.daemon.kill9()
        self._component.remove()

    def _json(self, path: str) -> Any:
        return json.loads(self._get(path))

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as answer:
            body: bytes = answer.read()
            return body

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
