"""From exports of the decision log to an artefact that is measured beside the running one, and its canary plan."""

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from dispatcher_service.metrics import Metrics
from dispatcher_service.records.metrics import RecordMetrics
from dispatcher_service.tenants import load_catalogue
from pointsman.cli import main
from scorer_service import artifact
from tests import logs
from training import canary_plan, from_log, log_records
from training.cli import DEFAULT_ARTIFACT
from training.from_log import LogError
from training.tables import DataError

CONFIG = """
[scorer]
address = "127.0.0.1:50051"
{canary}
[[models]]
name = "big"
price = {{ input = 10, output = 30 }}
[[models]]
name = "small"
price = {{ input = 1, output = 1 }}
[[deployments]]
name = "big"
model = "big"
base_url = "http://127.0.0.1:1/v1"
[[deployments]]
name = "small"
model = "small"
base_url = "http://127.0.0.1:1/v1"
[tenants.research]
strong_model = "big"
weak_model = "small"
strong_call_share = 0.3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log, and what `pointsman train --from-log` made of it in `new`."""
    folder = tmp_path_factory.mktemp("log")
    (folder / "exports").mkdir()
    logs.write(folder / "exports/research.jsonl")
    assert main(["train", "--from-log", str(folder / "exports"), "--out", str(folder / "new")]) == 0
    return folder


def test_the_new_artefact_ranks_better_than_the_running_one_on_what_came_later(folder: Path) -> None:
    trained = from_log.train(folder / "exports", DEFAULT_ARTIFACT, folder / "again")
    compared = trained.compared
    assert trained.running == artifact.load(DEFAULT_ARTIFACT).version
    assert compared.apgr_gain.above_zero
    assert compared.apgr_gain.value == pytest.approx(compared.apgr_new.value - compared.apgr_running.value)
    assert compared.brier_gain.value < 0.0
    assert compared.effective <= compared.labels < 0.3 * 600
    # The same log and seed give the same artefact.
    assert trained.artifact.version == artifact.load(folder / "new").version


def test_going_around_again_starts_from_the_same_base(folder: Path) -> None:
    """What runs by now is what the first time gave: the second is measured beside that, and is no larger."""
    first, running = artifact.load(folder / "new"), folder / "new"
    again = from_log.train(folder / "exports", running, folder / "second", base=DEFAULT_ARTIFACT)
    assert again.running == first.version
    assert again.artifact.model_path.read_bytes() == first.model_path.read_bytes()
    # The same log gives the same artefact, so that nothing is between them.
    assert (again.compared.apgr_gain.value, again.compared.apgr_gain.low) == (0.0, 0.0)


def test_the_manifest_tells_what_it_learnt_from(folder: Path) -> None:
    manifest = artifact.load(folder / "new").manifest
    account = manifest.training["from_log"]
    assert account["records"] == 600
    assert account["learnt_from"] + account["one_sided"] <= account["opinions"]
    assert manifest.data["exports"]["rows"] == 600
    assert manifest.router_kind == "static"


def test_every_step_of_the_plan_is_a_configuration_that_the_dispatcher_takes(folder: Path, tmp_path: Path) -> None:
    plan = tomllib.loads((folder / "new/canary.toml").read_text())
    version = artifact.load(folder / "new").version
    assert plan["canary"] == f"log-{version[:8]}"
    assert [step["weight"] for step in plan["steps"]] == [0.05, 0.25, 0.5]
    for step in plan["steps"]:
        file = tmp_path / "dispatcher.toml"
        file.write_text(CONFIG.format(canary=step["config"]))
        [canary] = load_catalogue(file).scorer.canaries
        assert (canary.name, canary.weight) == (plan["canary"], step["weight"])
    assert len(plan["aborts"]) == 4
    assert all(plan["canary"] in rule["expr"] for rule in plan["aborts"])


def test_abort_rules_ask_for_metrics_and_labels_that_there_are() -> None:
    registry = CollectorRegistry()
    Metrics(registry, tenants=["research"])
    RecordMetrics(registry, tenants=["research"])
    known = {f"{family.name}{end}" for family in registry.collect() for end in ("", "_total", "_bucket", "_count")}
    asked = {name for rule in canary_plan.aborts("new") for name in re.findall(r"pointsman_\w+", rule.expr)}
    assert asked <= known, asked - known


def test_a_log_that_one_model_answered_teaches_nothing_and_says_what_would(tmp_path: Path) -> None:
    """Alpha never moves: but for the stratum around it, each is answered by one model alone."""
    log = logs.write(tmp_path / "log.jsonl", overlap=0.0, preferences=0.0)
    with pytest.raises(LogError, match=r"\d+ opinions to learn from, and 100 are needed; \d{3} ratings were left out"):
        from_log.train(log, DEFAULT_ARTIFACT, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_worse_artefact_gets_no_plan(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What ran has learnt from this log; the new one starts from it and learns from opinions that say the opposite."""
    log = logs.write(tmp_path / "first.jsonl", seed=5)
    turned = log.read_text().replace("PREFERENCE_CHOSEN", "#").replace("PREFERENCE_OTHER", "PREFERENCE_CHOSEN")
    lines = turned.replace("#", "PREFERENCE_OTHER").splitlines()
    lines = [
        line.replace('"rating": 1.0', '"rating": #').replace('"rating": 0.0', '"rating": 1.0').replace("#", "0.0")
        for line in lines
    ]
    later = log.read_text().splitlines()[450:]
    log.write_text("\n".join([*lines[:450], *later]))
    arguments = ["--from-log", str(log), "--artifact", str(folder / "new"), "--out", str(tmp_path / "worse")]
    assert main(["train", *arguments]) == 3
    assert "no canary plan" in capsys.readouterr().out
    assert not (tmp_path / "worse/canary.toml").exists()


def test_records_are_read_once_in_order_with_what_decided_them(tmp_path: Path) -> None:
    (tmp_path / "exports").mkdir()
    whole = logs.write(tmp_path / "exports/b.jsonl", 60).read_text().splitlines()
    # An earlier export of some of them, before their feedback came.
    (tmp_path / "exports/a.jsonl").write_text("\n".join(_without_feedback(line) for line in whole[:20]))
    records = log_records.read(tmp_path / "exports")
    assert len(records.prompts) == 60
    assert (np.diff(records.seconds) == 60.0).all()
    assert records.opinions == log_records.read(tmp_path / "exports/b.jsonl").opinions
    assert records.by_chance.all()
    sticky = (
        whole[0]
        .replace("REASON_AT_OR_ABOVE_ALPHA", "REASON_STICKY_CONVERSATION")
        .replace("REASON_BELOW_ALPHA", "REASON_STICKY_CONVERSATION")
    )
    failed = whole[1].replace('"status": "OK"', '"status": "UNAVAILABLE"')
    (tmp_path / "c.jsonl").write_text(f"{sticky}\n{failed}\n")
    records = log_records.read(tmp_path / "c.jsonl")
    assert (records.by_chance.tolist(), records.passed_over) == ([False], 1)


def _without_feedback(line: str) -> str:
    record = json.loads(line)
    record.pop("feedback", None)
    return json.dumps(record)


def test_a_folder_without_exports_is_named_with_its_mend(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pointsman decisions export"):
        log_records.read(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"request_id": "r", "tenant_id": "t", "status": "OK"}\n')
    with pytest.raises(DataError, match="log_text"):
        log_records.read(tmp_path)
