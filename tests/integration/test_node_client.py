"""The Node.js client of deploy/clients/node against a live dispatcher; npm installs its two packages once."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.dispatchers import start_dispatcher
from tests.openai_server import openai_server_thread
from tests.processes import ROOT, SCORER_PORTS, ServiceProcess

CLIENT = ROOT / "deploy" / "clients" / "node"
INSTALLED = ROOT / ".cache" / "node-client"


@pytest.fixture(scope="module")
def client() -> Path:
    """The client in a folder with its packages; skips where there is no Node.js or nothing can be installed."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("Node.js is not installed")
    INSTALLED.mkdir(parents=True, exist_ok=True)
    for name in ("client.mjs", "package.json"):
        shutil.copy(CLIENT / name, INSTALLED)
    command = [npm, "install", "--no-audit", "--no-fund", "--prefer-offline"]
    result = subprocess.run(command, cwd=INSTALLED, capture_output=True, text=True, timeout=100, check=False)
    if result.returncode != 0:
        pytest.skip(f"npm install fails: {result.stderr[-300:]}")
    return INSTALLED / "client.mjs"


def _run(client: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", str(client), *arguments],
        env={"PATH": str(Path(str(shutil.which("node"))).parent), "POINTSMAN_PROTOS": str(ROOT / "protos")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_node_client_gets_decision_answer_stream_and_errors(client: Path, tmp_path: Path) -> None:
    with (
        openai_server_thread() as upstream,
        ServiceProcess("scorer_service", env=SCORER_PORTS) as scorer,
        start_dispatcher(tmp_path, scorer=scorer.grpc, upstream=upstream.base_url) as dispatcher,
    ):
        done = _run(client, dispatcher.grpc, "hello from node")
        assert done.returncode == 0, done.stderr
        first, answer, cost, streamed = done.stdout.splitlines()
        assert first.startswith("would go TIER_")
        assert answer.endswith("says: hello from node")
        assert int(cost.split()[1]) > 0
        assert streamed.startswith("streamed: ")
        assert streamed.endswith("says: hello from node (FINISH_REASON_STOP)")
        refused = _run(client, dispatcher.grpc, "hello", "nobody")
        assert refused.returncode == 1
        assert "UNAUTHENTICATED" in refused.stderr
