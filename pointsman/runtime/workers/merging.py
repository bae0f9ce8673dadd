"""One set of metrics out of several processes' own.

Each worker keeps an ordinary registry; the parent asks for its samples and merges them. prometheus_client's own way,
files that all processes write, was not taken: it knows no gauges that are read when they are asked for (breakers, lag,
tasks, certificates), does not forget a series that was removed, and makes every observation of the hot path a write to
a mapped file.

Counters and histograms add up, those of workers that have ended included, so that no counter falls. What a worker that
was killed counted after it was last asked is lost with it.
"""

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric


class GaugeRule(enum.Enum):
    """What several workers' values of one gauge are together."""

    SUM = "sum"
    """A part each, such as calls in flight."""
    MAX = "max"
    """The worst, or a number that only grows."""
    MIN = "min"
    """The first to end."""
    LATEST = "latest"
    """Views of one thing outside, such as an account: the value that changed last is the newest. Of values that changed
    between the same two looks, the greatest."""


Families = Sequence[tuple[str, str, str, Sequence[tuple[str, Mapping[str, str], float]]]]
"""Name, documentation, type, and samples with their labels: what crosses the line between processes, as JSON."""

_Series = tuple[str, tuple[tuple[str, str], ...]]
_ADDITIVE = frozenset({"counter", "histogram", "summary"})
_COMBINE: Mapping[GaugeRule, Callable[[Iterable[float]], float]] = {
    GaugeRule.SUM: sum,
    GaugeRule.MAX: max,
    GaugeRule.MIN: min,
}


def families(registry: CollectorRegistry) -> Families:
    """Everything in a registry, as it is now."""
    return [
        (metric.name, metric.documentation, metric.type, [(s.name, s.labels, s.value) for s in metric.samples])
        for metric in registry.collect()
    ]


@dataclass(slots=True)
class _Seen:
    """A worker's values when it was last asked, and the round in which each of them was first seen."""

    values: dict[str, dict[_Series, float]] = field(default_factory=dict)
    since: dict[_Series, int] = field(default_factory=dict)


class Merged:
    """The workers' metrics together. Not safe to use from several threads."""

    def __init__(self, gauges: Mapping[str, GaugeRule]) -> None:
        """`gauges` says by name how a gauge's values combine; one that it does not know is shown at its greatest."""
        self._gauges = gauges
        self._described: dict[str, tuple[str, str]] = {}
        self._workers: dict[int, _Seen] = {}
        self._ended: dict[str, dict[_Series, float]] = {}

    def update(self, worker: int, found: Families, *, turn: int) -> None:
        """Take what a worker has now.

        Args:
            worker: its number; whoever replaces it has another.
            found: everything in its registry.
            turn: rises with every round in which the workers are asked.
        """
        before, now = self._workers.get(worker, _Seen()), _Seen()
        for name, documentation, kind, samples in found:
            self._described[name] = (documentation, kind)
            known, values = before.values.get(name, {}), now.values.setdefault(name, {})
            for sample, labels, value in samples:
                series = (sample, tuple(labels.items()))
                values[series] = value
                now.since[series] = before.since[series] if known.get(series) == value else turn
        self._workers[worker] = now

    def retire(self, worker: int) -> None:
        """A worker has ended: its counts stay, its gauges go."""
        for name, values in self._workers.pop(worker, _Seen()).values.items():
            if self._adds_up(name):
                kept = self._ended.setdefault(name, {})
                for series, value in values.items():
                    kept[series] = kept.get(series, 0.0) + value

    def collect(self) -> Iterator[Metric]:
        """All of them. A gauge's series that no living worker shows is left out."""
        for name, (documentation, kind) in self._described.items():
            metric = Metric(name, documentation, kind)
            values = self._summed(name) if self._adds_up(name) else self._combined(name)
            for (sample, labels), value in values.items():
                metric.add_sample(sample, dict(labels), value)
            yield metric

    def _adds_up(self, name: str) -> bool:
        return self._described[name][1] in _ADDITIVE

    def _summed(self, name: str) -> Mapping[_Series, float]:
        total = dict(self._ended.get(name, {}))
        for seen in self._workers.values():
            for series, value in seen.values.get(name, {}).items():
                total[series] = total.get(series, 0.0) + value
        return total

    def _combined(self, name: str) -> Mapping[_Series, float]:
        rule = self._gauges.get(name, GaugeRule.MAX)
        shown: dict[_Series, list[tuple[int, float]]] = {}
        for seen in self._workers.values():
            for series, value in seen.values.get(name, {}).items():
                shown.setdefault(series, []).append((seen.since[series], value))
        if rule is GaugeRule.LATEST:
            return {series: max(views)[1] for series, views in shown.items()}
        combine = _COMBINE[rule]
        return {series: combine(value for _, value in views) for series, views in shown.items()}
