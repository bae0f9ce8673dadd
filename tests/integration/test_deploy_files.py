"""What is deployed, checked with the real tools: the chart by helm and Kubernetes' schemas, images and compose by lint.

Each rendered configuration is read by the dispatcher itself, and each variable is one that the services know.
"""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from dispatcher_service import settings as dispatcher_settings
from dispatcher_service.tenants import load_catalogue
from scorer_service import settings as scorer_settings
from tests import tools
from tests.processes import ROOT

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "pointsman"
DOCKERFILES = sorted((DEPLOY / "docker").glob("*.Dockerfile"))
KUBERNETES = ("1.30", "1.34")
LEDGER = "dispatcher.ledger.url=redis://valkey:6379/0"
SECURED = (
    LEDGER,
    "tls.enabled=true",
    "tls.scorerSecret=scorer-tls",
    "tls.dispatcherSecret=dispatcher-tls",
    "monitoring.serviceMonitor.enabled=true",
    "monitoring.rules.enabled=true",
    "monitoring.dashboards.enabled=true",
    "scorer.autoscaling.queueDepth=8",
    "dispatcher.autoscaling.callsInFlight=64",
    "scorer.artifacts[0].name=support",
    "scorer.artifacts[0].image=registry.example/support:1",
    "dispatcher.existingSecrets[0]=upstream-keys",
    "dispatcher.secretMounts[0].name=tenant-keys",
    "dispatcher.secretMounts[0].path=/keys",
)
FIXED_SIZE = (
    LEDGER,
    "scorer.autoscaling.enabled=false",
    "dispatcher.autoscaling.enabled=false",
    "scorer.keda.enabled=true",
)
VALUES = pytest.mark.parametrize("values", [(LEDGER,), SECURED, FIXED_SIZE], ids=["plain", "secured", "fixed size"])

_OPERATORS = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
"""Kinds of other projects' operators: Kubernetes' own schemas do not know them."""


def _helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tools.helm(), *arguments], capture_output=True, text=True, timeout=60, check=False)


def _rendered(values: Sequence[str]) -> list[dict[str, Any]]:
    sets = [part for value in values for part in ("--set", value)]
    result = _helm("template", "test", str(CHART), "--namespace", "llm", *sets)
    assert result.returncode == 0, result.stderr
    return [document for document in yaml.safe_load_all(result.stdout) if document]


def _containers(documents: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for document in documents:
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            yield from (*pod["containers"], *pod.get("initContainers", ()))


@VALUES
def test_the_chart_lints(values: Sequence[str]) -> None:
    result = _helm("lint", "--strict", str(CHART), *(part for value in values for part in ("--set", value)))
    assert result.returncode == 0, result.stdout + result.stderr


@VALUES
@pytest.mark.parametrize("version", KUBERNETES)
def test_every_manifest_is_one_that_kubernetes_takes(values: Sequence[str], version: str) -> None:
    documents = _rendered(values)
    for document in documents:
        if document["kind"] not in _OPERATORS:
            kubernetes_validate.validate(document, version, strict=True)
    kinds = [document["kind"] for document in documents]
    assert kinds.count("Deployment") == 2
    assert kinds.count("PodDisruptionBudget") == 2


@VALUES
def test_the_rendered_configuration_is_one_that_the_dispatcher_takes(values: Sequence[str], tmp_path: Path) -> None:
    (config,) = [
        each for each in _rendered(values) if each["kind"] == "ConfigMap" and "dispatcher.toml" in each["data"]
    ]
    path = tmp_path / "dispatcher.toml"
    path.write_text(config["data"]["dispatcher.toml"])
    assert load_catalogue(path).tenants


def test_the_compositions_configuration_is_one_that_the_dispatcher_takes() -> None:
    assert set(load_catalogue(DEPLOY / "compose" / "dispatcher.toml").tenants) == {"default", "support"}


@VALUES
def test_no_container_is_root_or_writes_to_its_image(values: Sequence[str]) -> None:
    documents = _rendered(values)
    for container in _containers(documents):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert container["resources"]["limits"]["memory"]
    for document in documents:
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["enableServiceLinks"] is False


@VALUES
def test_the_grace_is_longer_than_the_drain(values: Sequence[str]) -> None:
    for document in _rendered(values):
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            drain = next(int(e["value"]) for e in container["env"] if e["name"].endswith("_DRAIN"))
            wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert pod["terminationGracePeriodSeconds"] > drain + wait


@VALUES
def test_only_dispatchers_reach_the_scorer(values: Sequence[str]) -> None:
    policies = {d["metadata"]["name"]: d for d in _rendered(values) if d["kind"] == "NetworkPolicy"}
    grpc, metrics = policies["test-pointsman-scorer"]["spec"]["ingress"]
    (caller,) = grpc["from"]
    assert caller["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "dispatcher"
    assert [port["port"] for port in grpc["ports"]] == [50051]
    assert [port["port"] for port in metrics["ports"]] == [9101]


@VALUES
def test_every_variable_is_a_setting(values: Sequence[str]) -> None:
    known = _settings()
    for container in _containers(_rendered(values)):
        for variable in container.get("env", ()):
            assert variable["name"] in known


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((), "ledger"),
        (("dispatcher.ledger.url=sqlite:/tmp/x",), "url"),
        ((LEDGER, "scorer.replcas=3"), "replcas"),
        ((LEDGER, "tls.enabled=true"), "tls.scorerSecret"),
        ((LEDGER, "scorer.autoscaling.cpuPercent=0"), "cpuPercent"),
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(values: Sequence[str], named: str) -> None:
    result = _helm("template", "test", str(CHART), *(part for value in values for part in ("--set", value)))
    assert result.returncode != 0
    assert named in result.stderr


def test_every_value_of_the_chart_is_explained() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    top = [index for index, line in enumerate(lines) if line and not line.startswith((" ", "#"))]
    assert all(index == 0 or lines[index - 1] == "" or lines[index - 1].startswith("#") for index in top)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_lint(path: Path) -> None:
    result = subprocess.run(
        [Path(sys.executable).parent / "hadolint", path], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_run_as_a_user_and_set_what_the_service_knows(path: Path) -> None:
    text = path.read_text()
    assert "USER 10001:10001" in text
    assert "HEALTHCHECK" in text
    environment = [word.partition("=")[0] for word in text.split() if "_LISTEN=" in word or "_MODE=" in word]
    assert environment
    assert set(environment) <= _settings()


@pytest.mark.parametrize(("name", "group"), [("scorer", "scorer"), ("dispatcher", "dispatcher,redis")])
def test_a_services_image_installs_its_own_group_and_copies_its_own_code(name: str, group: str) -> None:
    text = (DEPLOY / "docker" / f"{name}.Dockerfile").read_text()
    other = {"scorer": "dispatcher_service", "dispatcher": "scorer_service"}[name]
    assert f"'.[{group}]'" in text
    assert f"COPY {other}" not in text


def test_the_composition_fits_the_schema_and_its_files_are_there() -> None:
    result = subprocess.run(
        [
            Path(sys.executable).parent / "check-jsonschema",
            "--builtin-schema",
            "vendor.compose-spec",
            DEPLOY / "compose.yaml",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    composition = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    known = _settings()
    for service in composition["services"].values():
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
            assert set(service.get("environment", {})) <= known
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
            else:
                assert source in composition["volumes"]


def _settings() -> set[str]:
    """The environment variables that our processes know."""
    from apps.local_upstream import server as local_upstream
    from apps.openai_gateway import settings as gateway_settings

    rooms = (dispatcher_settings, scorer_settings, gateway_settings, local_upstream)
    return {f"{room.PREFIX}_{field.name.upper()}" for room in rooms for field in dataclasses.fields(room.Settings)}
