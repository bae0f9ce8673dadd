"""The loop closed, every process real: traffic, opinions, export, training, canary, take-over while it runs."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests import processes, tools
from tests.openai_server import openai_server_thread
from tests.processes import Ended
from training import canary_plan

TOOK_OVER = re.compile(r"main scorer: all 20 tenants are scored by ([0-9a-f]{16}), none by ([0-9a-f]{16})")


def _took_over(ended: Ended, folder: Path) -> None:
    lines = ended.stdout.splitlines()
    assert ended.code == 0, ended.stdout + ended.stderr
    assert TOOK_OVER.fullmatch(lines[-1]), lines[-1]
    plan = tomllib.loads((folder / "new/canary.toml").read_text())
    shares = [
        re.match(rf"weight {step['weight']:g}: (\d+) of 20 tenants", line)
        for step, line in zip(plan["steps"], lines[-4:-1], strict=True)
    ]
    counts = [int(share[1]) for share in shares if share]
    assert len(counts) == 3
    assert counts == sorted(counts)  # a weight that grows only adds tenants
    assert 0 < counts[-1] < 20


@pytest.mark.timeout(240)
def test_opinions_become_a_scorer_that_takes_over_tenant_by_tenant(tmp_path: Path) -> None:
    with openai_server_thread() as upstream:
        address = upstream.base_url.removeprefix("http://").removesuffix("/v1")
        arguments = ("--requests", "280", "--upstream", address, "--keep", str(tmp_path))
        _took_over(processes.run_to_end("apps.demo.loop", *arguments, env={}, timeout=200), tmp_path)


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_the_walk_through_runs_on_the_local_model(tmp_path: Path) -> None:
    ended = processes.run_to_end("apps.demo.loop", "--keep", str(tmp_path), env={}, timeout=1100)
    _took_over(ended, tmp_path)


CANARY, WELL, ILL = "log-0123abcd", "0+60x1500", "0+12x1500"
"""What grows by 60 a minute, and by 12: opinions of 1.0 and 0.2 in the mean, where feedback grows by 60."""


def _series(*, failures: str = "0+0x1500", breaker: str = "0x1500", slow: str = WELL, opinion: str = WELL) -> str:
    seconds, feedback = "pointsman_dispatcher_scorer_seconds", "pointsman_dispatcher_feedback"
    values = {
        f'{seconds}_count{{scorer="{CANARY}",result="OK"}}': WELL,
        f'{seconds}_count{{scorer="{CANARY}",result="UNAVAILABLE"}}': failures,
        f'pointsman_dispatcher_scorer_breaker_state{{scorer="{CANARY}"}}': breaker,
        # Of the canary's predictions `slow` take 5 ms or less, of the main scorer's all; the rest up to 100 ms.
        f'{seconds}_bucket{{scorer="{CANARY}",result="OK",le="0.005"}}': slow,
        f'{seconds}_bucket{{scorer="{CANARY}",result="OK",le="0.1"}}': WELL,
        f'{seconds}_bucket{{scorer="{CANARY}",result="OK",le="+Inf"}}': WELL,
        **{f'{seconds}_bucket{{scorer="main",result="OK",le="{le}"}}': WELL for le in ("0.005", "0.1", "+Inf")},
        f'{feedback}_total{{scorer="{CANARY}",kind="rating"}}': WELL,
        f'{feedback}_opinion_total{{scorer="{CANARY}",kind="rating"}}': opinion,
        f'{feedback}_total{{scorer="main",kind="rating"}}': WELL,
        f'{feedback}_opinion_total{{scorer="main",kind="rating"}}': "0+54x1500",
    }
    return "".join(f"      - series: '{name}'\n        values: '{value}'\n" for name, value in values.items())


def test_an_abort_rule_gives_a_result_when_it_should_and_only_then(tmp_path: Path) -> None:
    """By Prometheus's own tool: a well canary aborts nothing, and each kind of ill one its own rule."""
    promtool = tools.prometheus("promtool")
    rules = canary_plan.aborts(CANARY)
    # A rule of Prometheus keeps a result as a series, which is all that one wants to know here.
    lines = ["groups:", "  - name: canary", "    rules:"]
    for place, rule in enumerate(rules):
        lines += [f"      - record: abort_{place}", "        expr: |"]
        lines += [f"          {line}" for line in f"count({rule.expr})".splitlines()]
    (tmp_path / "rules.yaml").write_text("\n".join(lines) + "\n")
    cases = [({}, None), ({"failures": ILL}, 0), ({"breaker": "2x1500"}, 1), ({"slow": ILL}, 2), ({"opinion": ILL}, 3)]
    tests = ["rule_files: [rules.yaml]", "tests:"]
    for changed, fires in cases:
        tests += ["  - interval: 1m", "    input_series:", _series(**changed).rstrip(), "    promql_expr_test:"]
        for place in range(len(rules)):
            wanted = f"[{{labels: 'abort_{place}', value: 1}}]" if place == fires else "[]"
            tests += [f"      - expr: abort_{place}", "        eval_time: 25h", f"        exp_samples: {wanted}"]
    (tmp_path / "test.yaml").write_text("\n".join(tests) + "\n")
    command = [promtool, "test", "rules", str(tmp_path / "test.yaml")]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
