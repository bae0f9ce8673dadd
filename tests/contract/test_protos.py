"""The contract: generated code is what the protos say, and the protos break no one."""

import filecmp
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.api import annotations_pb2

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
FILES = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "pointsman").rglob("*.proto"))
GENERATED = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "pointsman").rglob("*_pb2*.py*") if path.is_file())

# The protoc plugins and buf are installed beside the interpreter.
ENVIRONMENT = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}


def _run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=60)


def _protoc(out: Path, *flags: str, files: list[str]) -> None:
    plugins = [f"{flag}{out}" for flag in flags]
    done = _run(sys.executable, "-m", "grpc_tools.protoc", "-I", "protos", *plugins, *files)
    assert done.returncode == 0, done.stderr


def _buf(*arguments: str) -> None:
    done = _run("buf", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_regenerating_changes_nothing(tmp_path: Path) -> None:
    services = [name for name in FILES if "service " in (PROTOS / name).read_text(encoding="utf-8")]
    # The two calls of the Makefile's `protos`.
    _protoc(tmp_path, "--python_out=", "--mypy_out=quiet:", files=FILES)
    _protoc(tmp_path, "--grpc_python_out=", "--mypy_grpc_out=quiet:", files=services)
    made = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert made == [name for name in GENERATED if "__pycache__" not in name]
    _, mismatched, missing = filecmp.cmpfiles(tmp_path, ROOT, made, shallow=False)
    assert (mismatched, missing) == ([], []), "run `make protos` and commit what it changes"


def test_the_protos_are_lint_clean() -> None:
    _buf("lint", "protos")


def test_the_protos_are_formatted() -> None:
    _buf("format", "--exit-code", "--diff", "--exclude-path", "protos/google", "protos")


def test_what_is_copied_of_google_is_what_runs() -> None:
    installed = Path(annotations_pb2.__file__).parent
    for copied in (PROTOS / "google" / "api").iterdir():
        assert copied.read_text(encoding="utf-8") == (installed / copied.name).read_text(encoding="utf-8")


def test_nothing_breaks_callers_of_the_last_release(tmp_path: Path) -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so that there is no release to compare with")
    tag = _run("git", "describe", "--tags", "--abbrev=0", "--match", "v*").stdout.strip()
    if not tag:
        pytest.skip("nothing is released yet")
    released = tmp_path / "released.tar"
    done = _run("git", "archive", "--format=tar", f"--output={released}", tag, "protos")
    assert done.returncode == 0, done.stderr
    shutil.unpack_archive(released, tmp_path, filter="data")
    _buf("breaking", "protos", "--against", str(tmp_path / "protos"))
