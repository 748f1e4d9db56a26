"""Numbers for /metrics, read only when somebody looks.

Hot paths count in plain integers, which cost nothing to export: what is registered here is a function that reads them.
A `Metrics` is an object of the composition root, not a global one, so that two servers in one process (tests) keep
apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Literal

from loguru import logger
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

PREFIX = "orchestrator_"

_FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}

Histogram = tuple[Sequence[float], Sequence[int], float]
"""Bounds; how many were at most as large as each bound and larger than that before it, and then how many were larger
than all; their sum."""
Reading = float | Mapping[str, float] | Mapping[tuple[str, ...], float]
"""A number; or label value(s) → number where the metric has labels."""


class Metrics:
    """Named counters, gauges and histograms of one server. Names are given without the prefix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._families: dict[str, tuple[Literal["counter", "gauge"], str, tuple[str, ...], Callable[[], Reading]]] = {}
        self._histograms: dict[str, tuple[str, str, Callable[[], Mapping[str, Histogram]]]] = {}
        self.registry.register(self)
        PlatformCollector(registry=self.registry)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def counter(self, name: str, doc: str, read: Callable[[], Reading], labels: tuple[str, ...] = ()) -> None:
        """A number that only grows; Prometheus adds `_total` to its name."""
        self._add("counter", name, doc, labels, read)

    def gauge(self, name: str, doc: str, read: Callable[[], Reading], labels: tuple[str, ...] = ()) -> None:
        """A number that goes up and down."""
        self._add("gauge", name, doc, labels, read)

    def histogram(self, name: str, doc: str, read: Callable[[], Mapping[str, Histogram]], label: str = "") -> None:
        """How many of something were how large, for each value of a label; without one it is read under ''."""
        if name in self._histograms:
            raise ValueError(f"metric {name!r} is defined twice")
        self._histograms[name] = (doc, label, read)

    def exposition(self) -> bytes:
        """The text format of Prometheus."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Prometheus' side of a collector. A reading that fails is left out; the others are still told."""
        for name, (kind, doc, labels, read) in self._families.items():
            family = _FAMILIES[kind](PREFIX + name, doc, labels=labels)
            try:
                for values, number in _samples(read()):
                    family.add_metric(values, number)
            except Exception:
                logger.bind(source="metrics", metric=name).exception("metric_fault")
                continue
            yield family
        for name, (doc, label, observed) in self._histograms.items():
            histogram = HistogramMetricFamily(PREFIX + name, doc, labels=(label,) if label else ())
            for value, (bounds, counts, total) in observed().items():
                names = [*map(str, bounds), "+Inf"]
                buckets = list(zip(names, map(float, accumulate(counts)), strict=True))
                histogram.add_metric((value,) if label else (), buckets, total)
            yield histogram

    def describe(self) -> list[Metric]:
        """Empty: nothing is read when the collector is registered."""
        return []

    def _add(
        self,
        kind: Literal["counter", "gauge"],
        name: str,
        doc: str,
        labels: tuple[str, ...],
        read: Callable[[], Reading],
    ) -> None:
        if name in self._families:
            raise ValueError(f"metric {name!r} is defined twice")
        self._families[name] = (kind, doc, labels, read)


def _samples(reading: Reading) -> Iterator[tuple[tuple[str, ...], float]]:
    if not isinstance(reading, Mapping):
        yield (), float(reading)
        return
    for values, number in reading.items():
        yield (values if isinstance(values, tuple) else (values,)), float(number)
