"""Several processes' metrics as one."""

import json

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from pointsman.runtime.workers import merging
from pointsman.runtime.workers.merging import Families, GaugeRule, Merged


class Worker:
    """What one worker counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("calls", "Calls.", ["method", "status"], registry=self.registry)
        self.seconds = Histogram("seconds", "Seconds.", buckets=(1.0, 5.0), registry=self.registry)
        self.spent = Gauge("spent", "Spent.", ["tenant"], registry=self.registry)
        self.running = Gauge("running", "Running.", registry=self.registry)

    def families(self) -> Families:
        """As they come over the line."""
        found: Families = json.loads(json.dumps(merging.families(self.registry)))
        return found


class Shown(CollectorRegistry):
    """Reads what is merged as Prometheus would."""

    def __init__(self, merged: Merged) -> None:
        super().__init__()
        self.register(merged)


RULES = {"spent": GaugeRule.LATEST, "running": GaugeRule.SUM}


def two() -> tuple[Merged, Worker, Worker]:
    return Merged(RULES), Worker(), Worker()


def look(merged: Merged, *workers: Worker, turn: int = 1) -> Shown:
    for number, worker in enumerate(workers):
        merged.update(number, worker.families(), turn=turn)
    return Shown(merged)


def test_counters_and_histograms_add_up_by_their_labels() -> None:
    merged, one, other = two()
    one.calls.labels("Complete", "OK").inc(3)
    other.calls.labels("Complete", "OK").inc(4)
    other.calls.labels("Route", "OK").inc()
    one.seconds.observe(0.5)
    other.seconds.observe(3)
    shown = look(merged, one, other)
    assert shown.get_sample_value("calls_total", {"method": "Complete", "status": "OK"}) == 7
    assert shown.get_sample_value("calls_total", {"method": "Route", "status": "OK"}) == 1
    assert shown.get_sample_value("seconds_bucket", {"le": "1.0"}) == 1
    assert shown.get_sample_value("seconds_bucket", {"le": "+Inf"}) == 2
    assert shown.get_sample_value("seconds_sum") == 3.5


def test_what_is_merged_of_one_worker_is_what_it_shows_itself() -> None:
    merged, one, _ = two()
    one.calls.labels("Complete", "OK").inc()
    one.spent.labels("ada").set(float("inf"))
    assert generate_latest(look(merged, one)) == generate_latest(one.registry)


def test_no_counter_falls_when_a_worker_is_replaced() -> None:
    merged, one, other = two()
    one.calls.labels("Complete", "OK").inc(3)
    other.calls.labels("Complete", "OK").inc(4)
    look(merged, one, other)
    merged.retire(0)
    replacement = Worker()
    replacement.calls.labels("Complete", "OK").inc()
    merged.update(2, replacement.families(), turn=2)
    assert Shown(merged).get_sample_value("calls_total", {"method": "Complete", "status": "OK"}) == 8
    merged.retire(2)
    assert Shown(merged).get_sample_value("calls_total", {"method": "Complete", "status": "OK"}) == 8


def test_a_gauge_of_work_at_hand_is_a_sum_over_living_workers() -> None:
    merged, one, other = two()
    one.running.set(5)
    other.running.set(2)
    assert look(merged, one, other).get_sample_value("running") == 7
    merged.retire(0)
    assert Shown(merged).get_sample_value("running") == 2


def test_of_views_of_one_account_the_newest_is_shown_and_so_spending_falls_when_a_window_ends() -> None:
    merged, busy, idle = two()
    busy.spent.labels("ada").set(100)
    idle.spent.labels("ada").set(90)
    assert look(merged, busy, idle, turn=1).get_sample_value("spent", {"tenant": "ada"}) == 100
    busy.spent.labels("ada").set(1)  # a new window: the idle worker has not heard of it
    assert look(merged, busy, idle, turn=2).get_sample_value("spent", {"tenant": "ada"}) == 1
    assert look(merged, busy, idle, turn=3).get_sample_value("spent", {"tenant": "ada"}) == 1
    idle.spent.labels("ada").set(2)
    assert look(merged, busy, idle, turn=4).get_sample_value("spent", {"tenant": "ada"}) == 2


def test_of_views_that_changed_between_two_looks_the_greatest_is_shown() -> None:
    merged, one, other = two()
    one.spent.labels("ada").set(3)
    other.spent.labels("ada").set(4)
    assert look(merged, one, other).get_sample_value("spent", {"tenant": "ada"}) == 4


def test_a_series_that_every_worker_has_removed_is_gone() -> None:
    merged, one, other = two()
    one.spent.labels("ada").set(3)
    other.spent.labels("ada").set(3)
    look(merged, one, other)
    one.spent.remove("ada")
    assert look(merged, one, other, turn=2).get_sample_value("spent", {"tenant": "ada"}) == 3
    other.spent.remove("ada")
    assert look(merged, one, other, turn=3).get_sample_value("spent", {"tenant": "ada"}) is None


def test_a_gauge_without_a_rule_is_shown_at_its_greatest_and_the_first_to_end_at_its_least() -> None:
    for rules, expected in (({}, 5.0), ({"running": GaugeRule.MIN}, 2.0)):
        merged, one, other = Merged(rules), Worker(), Worker()
        one.running.set(5)
        other.running.set(2)
        assert look(merged, one, other).get_sample_value("running") == expected
