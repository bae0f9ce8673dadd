"""What the images install and start: each service's group alone in an empty environment, and nothing of the other."""

import os
import re
import subprocess
import venv
from pathlib import Path

import pytest

from tests.processes import ROOT, eventually

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

CASES = [
    ("scorer", "scorer_service", "dispatcher_service", "openai"),
    ("dispatcher", "dispatcher_service", "scorer_service", "onnxruntime"),
]


@pytest.mark.parametrize(("image", "service", "other", "stranger"), CASES, ids=["scorer", "dispatcher"])
def test_a_service_starts_from_its_own_group_alone(
    image: str, service: str, other: str, stranger: str, tmp_path: Path
) -> None:
    dockerfile = (ROOT / "deploy" / "docker" / f"{image}.Dockerfile").read_text()
    source = tmp_path / "src"
    source.mkdir()
    # What the Dockerfile copies, and nothing else.
    build_stage = dockerfile.split("\nFROM ")[1]
    for line in re.findall(r"^COPY (.+)$", build_stage, re.MULTILINE):
        *names, _ = line.split()
        for name in names:
            subprocess.run(["cp", "-r", str(ROOT / name), str(source)], check=True)
    assert not (source / other).exists()
    group = re.search(r"'\.\[(.+)\]'", dockerfile)
    assert group is not None
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt"]
    subprocess.run([*install, f".[{group[1]}]"], cwd=source, check=True, timeout=600)
    missing = subprocess.run([python, "-c", f"import {stranger}"], cwd=tmp_path, capture_output=True, check=False)
    assert missing.returncode != 0
    log = tmp_path / "log"
    prefix = image.upper()
    settings = {
        f"{prefix}_LISTEN": "127.0.0.1:0",
        f"{prefix}_METRICS_LISTEN": "127.0.0.1:0",
        f"{prefix}_LOG_STYLE": "json",
    }
    if image == "dispatcher":
        settings["DISPATCHER_LEDGER"] = "memory:"
    with log.open("w") as output:
        # From another folder: what is imported is what was installed.
        process = subprocess.Popen(
            [python, "-m", service], cwd=tmp_path, stderr=output, env={"PATH": os.environ["PATH"], **settings}
        )
        try:
            for _ in eventually(60):
                assert process.poll() is None, log.read_text()
                found = re.search(r'"grpc": ?"(127\.0\.0\.1:\d+)"', log.read_text())
                if found:
                    break
            probe = [python, "-m", "pointsman.runtime.probe", found[1] if found else ""]
            assert subprocess.run(probe, cwd=tmp_path, timeout=30, check=False).returncode == 0
        finally:
            process.terminate()
            code = process.wait(60)
    assert code == 0
