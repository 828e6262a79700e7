"""The same numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mma_realtime.errors import StatusError

try:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError:
    raise StatusError("the status service needs prometheus-client: pip install 'papers-mma-realtime[status]'") from None

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Once(Collector):
    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status

    def collect(self) -> Iterator[Metric]:
        status = self.status
        gauge, counter = GaugeMetricFamily, CounterMetricFamily
        yield gauge("mma_queue_depth", "Notices that wait to be sent.", status["outbox"]["waiting"])
        yield gauge("mma_queue_oldest_seconds", "Age of the oldest of them.", status["outbox"]["oldest"])
        if status["real_time_factor"] is not None:
            factor = "Seconds of strain per second of computing."
            yield gauge("mma_real_time_factor", factor, status["real_time_factor"])
        yield counter("mma_duplicates_dropped", "Deliveries that subscribers saw before.", status["duplicates_dropped"])
        yield counter("mma_gaps", "Seconds of strain that were missing or flagged.", status["gaps"])
        lag = gauge("mma_stage_lag_seconds", "How far a stage is behind what it reads.", labels=["stage"])
        up = gauge("mma_stage_up", "1: the stage says that it runs.", labels=["stage"])
        restarts = counter("mma_stage_restarts", "Restarts by the supervisor.", labels=["stage"])
        for stage in status["stages"]:
            if stage["lag"] is not None:
                lag.add_metric([stage["name"]], stage["lag"])
            up.add_metric([stage["name"]], float(stage["health"] in ("ok", "waiting")))
            restarts.add_metric([stage["name"]], stage["restarts"])
        yield from (lag, up, restarts)
        latency = gauge("mma_latency_seconds", "Of a step, over the last ones.", labels=["step", "quantile"])
        for row in status["latency"]:
            for name, quantile in (("p50", "0.5"), ("p99", "0.99")):
                latency.add_metric([row["step"], quantile], row[name])
        yield latency
        alerts = counter("mma_alerts", "Superevents that came to this version.", labels=["version"])
        for version, count in status["alerts_per_version"].items():
            alerts.add_metric([version], count)
        yield alerts


def exposition(status: dict[str, Any]) -> bytes:
    """The text that Prometheus reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(status))
    return generate_latest(registry)
