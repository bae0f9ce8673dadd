"""The capacity model: arithmetic on what was measured."""

from benchmarks.capacity import Costs, Point, render

POINTS = [
    Point(offered=300, answered=300, median=0.004, p99=0.02, dispatcher_cpu=0.6, scorer_cpu=0.15, ledger_steps=900)
]
COSTS = Costs(dispatcher=0.002, scorer=0.0005, sqlite=0.0005, valkey=0.0002, ledger_steps=3.0)


def rows(section: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]


def test_a_rate_takes_its_cpu_at_the_planned_use_of_a_core_and_at_least_two_of_each() -> None:
    table = rows(render(POINTS, COSTS, usd_per_core_hour=0.05))
    # 300 calls/s: .6 and .15 cores; at 60 % of a core one dispatcher and a quarter of a scorer.
    assert ["300", "2", "2", "900", "15% busy", "6% busy", "$0.25 an hour", "$0.23"] in table
    # 3,000 calls/s: 6 and 1.5 cores, ten dispatchers and three scorers, 14 cores with the ledger's: $.70 / 10.8 M.
    assert ["3,000", "10", "3", "9,000", "150%: not possible", "60% busy", "$0.70 an hour", "$0.06"] in table


def test_the_model_is_labelled_and_says_what_is_full_first() -> None:
    section = render(POINTS, COSTS, usd_per_core_hour=0.05)
    assert "**Model, not measured.** A call takes 2.00 ms of a dispatcher's core" in section
    full = [line.partition(": ")[2] for line in section.splitlines() if line[1:3] == ". "]
    assert full == ["500 calls/s", "2,000 calls/s", "2,000 calls/s", "5,000 calls/s"]
