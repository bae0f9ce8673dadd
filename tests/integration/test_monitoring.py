"""Every expression of every panel, rule and alert, on a real Prometheus that scrapes both services under traffic."""

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pointsman.client import DispatcherClient, PointsmanCallError
from tests import tools
from tests.answer_artifacts import write_answer
from tests.integration.test_dashboards import DASHBOARDS, panels
from tests.openai_server import openai_server_thread
from tests.processes import DISPATCHER_PORTS, ROOT, SCORER_PORTS, ServiceProcess, eventually
from training.cli import DEFAULT_ARTIFACT

RULES = ROOT / "deploy" / "prometheus" / "rules"
TESTS = ROOT / "deploy" / "prometheus" / "tests"

CONFIG = """
[scorer]
address = "{scorer}"
timeout = 1.0

[[models]]
name = "big"
price = {{ input = 10, output = 30 }}
max_output_tokens = 200

[[models]]
name = "small"
price = {{ input = 0.6, output = 0.6 }}
max_output_tokens = 200

[[deployments]]
name = "big-1"
model = "big"
base_url = "{upstream}"

[[deployments]]
name = "small-1"
model = "small"
base_url = "{upstream}"

[tenants.default]
strong_model = "big"
weak_model = "small"
strong_call_share = 0.5
usd_per_hour = 100
usd_per_day = 1000
usd_per_month = 10000

[tenants.poor]
strong_model = "big"
weak_model = "small"
alpha = 0.0
usd_per_day = 0.009
on_exhausted = "reject"

[tenants.cascading]
strong_model = "big"
weak_model = "small"
strategy = "cascade"
cascade = {{ thresholds = [0.5] }}
"""


TENANTS = ("default", "poor", "cascading")
ABSENT = {
    'pointsman_dispatcher_decision_reasons_total{reason="scorer_unavailable"}': "the scorer is there all along",
    'pointsman_dispatcher_stages_total{result="no_score"}': "and so is its judge",
    'pointsman_dispatcher_admission_refused_total{cause=~"calls|wait|lag|age"}': "nothing is overloaded",
    'pointsman_dispatcher_auth_total{result="expired"}': "there are no credentials",
}
"""Selectors without series in this test, with the reason."""


class Prometheus:
    """A real Prometheus process with our rules, scraping every second."""

    def __init__(self, folder: Path, targets: dict[str, str]) -> None:
        # Rules are evaluated at the same pace as here everything happens: minutes of a test are hours of a day.
        rules = folder / "rules"
        shutil.copytree(RULES, rules)
        for path in rules.iterdir():
            path.write_text(path.read_text().replace("interval: 30s", "interval: 1s"))
        config = folder / "prometheus.yml"
        config.write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(rules / "*.yaml")],
                    "scrape_configs": [
                        {"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()
                    ],
                }
            )
        )
        self._log = (folder / "prometheus.log").open("w")
        self._process = subprocess.Popen(
            [
                tools.prometheus(),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
                "--log.format=json",
            ],
            stdout=self._log,
            stderr=self._log,
        )
        self.url = self._find_url(folder / "prometheus.log")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query. Raises for one that does not parse."""
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query?{query}", timeout=10) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from error
        series: list[dict[str, Any]] = answer["data"]["result"]
        return series

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()

    def _find_url(self, log: Path) -> str:
        for _ in eventually(30):
            match = re.search(r'"address":"(127\.0\.0\.1:[1-9]\d*)"', log.read_text())
            if match:
                return f"http://{match[1]}"
            assert self._process.poll() is None, log.read_text()
        raise AssertionError


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    tools.prometheus()
    folder = tmp_path_factory.mktemp("prometheus")
    artifacts = f"default={DEFAULT_ARTIFACT},judge={write_answer(folder / 'judge')}"
    with (
        openai_server_thread() as upstream,
        ServiceProcess("scorer_service", env={**SCORER_PORTS, "SCORER_ARTIFACTS": artifacts}) as scorer,
    ):
        config = folder / "dispatcher.toml"
        config.write_text(CONFIG.format(scorer=scorer.grpc, upstream=upstream.base_url))
        env = {
            **DISPATCHER_PORTS,
            "DISPATCHER_CONFIG": str(config),
            "DISPATCHER_LEDGER": f"sqlite:{folder / 'ledger.db'}",
            # Rules and dashboards read what a parent has merged of two.
            "DISPATCHER_WORKERS": "2",
        }
        with ServiceProcess("dispatcher_service", env=env) as dispatcher:
            targets = {"pointsman-scorer": scorer.metrics, "pointsman-dispatcher": dispatcher.metrics}
            server = Prometheus(folder, targets)
            with contextlib.closing(server):
                for seconds in eventually(60):
                    asyncio.run(_traffic(dispatcher.grpc))
                    # Recording rules that read others need a second round.
                    if seconds > 8 and server.query("scorer:pointsman_win_probability_psi:rate1h"):
                        break
                yield server


async def _traffic(address: str) -> None:
    """Some of everything that the dashboards show."""
    prompts = ["hello", "Prove that 7 is prime.", "no usage", "status 500", "Write a haiku about rain.", "2 + 2 = ?"]
    for tenant in TENANTS:
        async with DispatcherClient(address, tenant=tenant, timeout=20) as client:
            for prompt in prompts[:1] if tenant == "cascading" else prompts:
                with contextlib.suppress(PointsmanCallError):
                    await client.complete(prompt, max_tokens=100)
                with contextlib.suppress(PointsmanCallError):
                    async with client.stream_complete(prompt, max_tokens=100) as stream:
                        async for _ in stream:
                            pass


def test_the_rules_are_valid_and_each_alert_fires_when_it_should() -> None:
    promtool = tools.prometheus("promtool")
    for command in (
        ["check", "rules", *map(str, RULES.glob("*.yaml"))],
        ["test", "rules", str(TESTS / "alerts.test.yaml")],
    ):
        result = subprocess.run([promtool, *command], capture_output=True, text=True, timeout=120, check=False)
        assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_is_tested_and_says_what_to_do() -> None:
    tested = (TESTS / "alerts.test.yaml").read_text()
    for rule in _rules("alerts.yaml"):
        assert f'"{rule["alert"]}"' in tested, rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"].endswith(".")
        assert len(rule["annotations"]["description"]) > 80, rule["alert"]


def test_every_panel_shows_something(prometheus: Prometheus) -> None:
    silent = []
    for path in DASHBOARDS:
        for panel in panels(path):
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", "1m").replace("$__range", "5m")
                # One tenant has a share, the other a limit that it reaches.
                if not any(prometheus.query(expression.replace("$tenant", tenant)) for tenant in TENANTS):
                    silent.append(f"{path.stem} / {panel['title']}: {expression}")
    assert not silent, "\n".join(silent)


def test_every_recording_rule_records(prometheus: Prometheus) -> None:
    silent = [rule["record"] for rule in _rules("recording.yaml") if not prometheus.query(rule["record"])]
    assert not silent


def test_every_alert_looks_at_series_that_are_there(prometheus: Prometheus) -> None:
    for rule in _rules("alerts.yaml"):
        prometheus.query(rule["expr"])
        if "certificate" in rule["expr"]:
            continue  # There is no TLS here, and so no certificate.
        # With their labels: a misspelt value would never fire.
        for selector in set(re.findall(r"\b(?:[\w:]*pointsman_[\w:]+|up)(?:\{[^}]*\})?", rule["expr"])):
            assert prometheus.query(selector) or selector in ABSENT, f"{rule['alert']}: {selector}"


def test_what_the_chart_and_the_guide_scale_on_is_there_and_by_process(prometheus: Prometheus) -> None:
    chart = ROOT / "deploy" / "helm" / "pointsman"
    lines = [line for path in (chart / "templates").glob("*") for line in path.read_text().splitlines()]
    guide = (ROOT / "deploy" / "README.md").read_text().splitlines()
    lines += [line for line in guide if "seriesQuery" in line]
    named = {name for line in lines for name in re.findall(r"\bpointsman_(?:scorer|dispatcher)_\w+", line)}
    assert named >= {"pointsman_scorer_queue_conversations", "pointsman_dispatcher_requests_in_flight"}
    for name in named:
        # An adapter gives each pod's sum to the autoscaler: there must be one per target, whatever labels stand beside.
        assert len(prometheus.query(f"sum by (instance) ({name})")) == 1, name


def test_workers_behind_one_name_add_up(prometheus: Prometheus) -> None:
    whole = prometheus.query("sum(pointsman_dispatcher_decisions_total)")
    by_tier = prometheus.query("sum by (tier) (pointsman_dispatcher_decisions_total)")
    assert sum(float(series["value"][1]) for series in by_tier) == float(whole[0]["value"][1])


def _rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]
