"""Dashboards: built from code, and held to the checks of Grafana's dashboard-linter."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT

FOLDER = ROOT / "deploy" / "grafana" / "dashboards"
DASHBOARDS = sorted(FOLDER.glob("*.json"))
EACH = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def panels(path: Path) -> Iterator[dict[str, Any]]:
    """The panels of a dashboard, without its rows."""
    for panel in json.loads(path.read_text())["panels"]:
        if panel["type"] != "row":
            yield panel


def test_what_is_committed_is_what_the_code_builds(tmp_path: Path) -> None:
    subprocess.run([sys.executable, FOLDER.parent / "build.py", tmp_path], check=True, timeout=60)
    built = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert built == {path.name: path.read_text() for path in DASHBOARDS}


@EACH
def test_a_dashboard_has_a_stable_name_a_variable_for_its_data_and_links(path: Path) -> None:
    board = json.loads(path.read_text())
    assert re.fullmatch(r"pointsman-[a-z-]+", board["uid"])
    assert board["title"].startswith("Pointsman / ")
    assert board["timezone"] == "utc"
    assert board["editable"] is False
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert all(variable["label"] for variable in variables.values())
    assert [link["tags"] for link in board["links"]] == [["pointsman"]]


@EACH
def test_every_panel_has_a_title_a_description_a_unit_and_its_data_from_the_variable(path: Path) -> None:
    board = json.loads(path.read_text())
    titles = [panel["title"] for panel in panels(path)]
    assert len(titles) == len(set(titles))
    for panel in panels(path):
        assert panel["title"]
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for target in panel["targets"]:
            assert panel["datasource"]["uid"] == target["datasource"]["uid"] == "${datasource}"
            assert target["legendFormat"], panel["title"]
    used = set(re.findall(r"\$(?!__)(\w+)", json.dumps(board))) - {"datasource"}
    assert used <= {variable["name"] for variable in board["templating"]["list"]}


@EACH
def test_counters_are_read_over_the_interval_that_grafana_chooses(path: Path) -> None:
    for panel in panels(path):
        for target in panel["targets"]:
            expression = target["expr"]
            assert set(re.findall(r"\[([^]]+)\]", expression)) <= {"$__rate_interval", "$__range"}, panel["title"]
            # A bare counter only ever grows.
            for counter in re.findall(r"\w+(?:_total|_bucket|_count)\b", expression):
                assert re.search(rf"(rate|increase)\({counter}", expression), panel["title"]


@EACH
def test_panels_do_not_overlap(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(path.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
