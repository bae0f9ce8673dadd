"""The dispatcher keeps nothing of the requests that it has answered, however they ended.

pytest -s tests/integration/test_soak.py              5,000 requests
pytest -s -m full tests/integration/test_soak.py      100,000 requests
"""

import pytest

from benchmarks import soak


def _check(requests: int, capsys: pytest.CaptureFixture[str]) -> None:
    report = soak.run(requests)
    with capsys.disabled():
        print(f"\n{report}")  # noqa: T201
    assert not report.errors, report.errors[0]
    assert sum(report.statuses.values()) == requests
    assert {"OK", "UNAVAILABLE", "INVALID_ARGUMENT", "left"} <= report.statuses.keys()
    assert not {"INTERNAL", "UNKNOWN"} & report.statuses.keys()
    assert (report.end.in_flight, report.open_upstream_calls) == (0, 0)
    assert report.end.tasks <= report.warm.tasks
    # Idle connections to the upstream come and go with the load.
    assert report.end.descriptors <= report.warm.descriptors + soak.CONCURRENCY
    assert report.growth <= 0.05


@pytest.mark.timeout(300)
def test_five_thousand_requests_with_faults_leave_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    _check(5_000, capsys)


@pytest.mark.full
def test_a_hundred_thousand_leave_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    _check(100_000, capsys)
