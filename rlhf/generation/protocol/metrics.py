"""What the policy server has done, in Prometheus' text format at `/metrics`, by policy version."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from rlhf.generation.protocol.responses import Usage

FIRST_TOKEN_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0)
WHOLE_BUCKETS_S = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

CONTENT_TYPE = CONTENT_TYPE_LATEST


class _EngineGauges(Collector):
    """The engine's own counts, read when somebody asks."""

    def __init__(self, counts: Callable[[], Mapping[str, float]]):
        self._counts = counts

    def describe(self) -> Iterable[Metric]:
        # Without this the counts are read at registration, to learn the names.
        return []

    def collect(self) -> Iterable[Metric]:
        counts = self._counts()
        yield GaugeMetricFamily("rankloop_streams_queued", "Answers that wait for a place in the engine.", value=counts["queued"])
        yield GaugeMetricFamily("rankloop_streams_running", "Answers that the engine is sampling.", value=counts["running"])


class ServerMetrics:
    """The counters of one server.

    Args:
        engine_counts: the engine's numbers of queued and running answers.
    """

    def __init__(self, engine_counts: Callable[[], Mapping[str, float]]):
        self.registry = CollectorRegistry()
        self.registry.register(_EngineGauges(engine_counts))
        by, registry = ["version"], self.registry
        self._requests = Counter(
            "rankloop_requests", "Requests for answers, by how they ended: stop, length, cancelled, refused or failed.",
            ["version", "outcome"], registry=registry,
        )  # fmt: skip
        self._prompt_tokens = Counter("rankloop_prompt_tokens", "Tokens of prompts.", by, registry=registry)
        self._completion_tokens = Counter("rankloop_completion_tokens", "Tokens of answers, reasoning included.", by, registry=registry)
        self._first_token_s = Histogram(
            "rankloop_time_to_first_token_seconds", "From the request to its first token, in seconds.", by, registry=registry,
            buckets=FIRST_TOKEN_BUCKETS_S,
        )  # fmt: skip
        self._whole_s = Histogram(
            "rankloop_request_seconds", "From the request to the end of its last answer, in seconds.", by, registry=registry,
            buckets=WHOLE_BUCKETS_S,
        )  # fmt: skip

    def begin(self, version: str) -> RequestTimer:
        """Called when a request arrives; the version must be one that exists, because each gets rows of its own."""
        return RequestTimer(self, version)

    def text(self) -> bytes:
        """The whole page."""
        return generate_latest(self.registry)


class RequestTimer:
    """One request's times and counts."""

    def __init__(self, metrics: ServerMetrics, version: str):
        self._metrics, self._version, self._started, self._ended = metrics, version, time.monotonic(), False

    def first_token(self) -> None:
        self._metrics._first_token_s.labels(self._version).observe(time.monotonic() - self._started)

    def end(self, outcome: str, usage: Usage | None = None) -> None:
        """Counts the request once, however often it is called."""
        if self._ended:
            return
        self._ended = True
        self._metrics._requests.labels(self._version, outcome).inc()
        if usage is not None:
            self._metrics._prompt_tokens.labels(self._version).inc(usage.prompt_tokens)
            self._metrics._completion_tokens.labels(self._version).inc(usage.completion_tokens)
            self._metrics._whole_s.labels(self._version).observe(time.monotonic() - self._started)
