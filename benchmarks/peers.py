"""What Pointsman is measured against: installed by the benchmark into `.cache/`, never a dependency of ours.

A peer that cannot be had is no error: its rows say "not measured" and why.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "peers"
_PACKAGES = {"nginx": "nginx-light", "h2load": "nghttp2-client"}
_INSTALL_SECONDS = 900


class Missing(Exception):
    """A peer or tool is not here. The message says why, and what to do."""


def tool(name: str) -> str:
    """The path of `nginx` or `h2load`, from Debian's packages.

    Raises:
        Missing: it is not installed and cannot be.
    """
    package = _PACKAGES[name]
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        if not shutil.which("apt-get") or os.geteuid() != 0:
            raise Missing(f"{name} is not installed: install {package} (as root: apt-get install {package})")
        print(f"installing {package} (once)", file=sys.stderr)
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-qq", "--no-install-recommends", package],
        ):
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
            if done.returncode != 0:
                raise Missing(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1:]}")
        found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise Missing(f"{package} has no {name}")
    return found


def python_environment(name: str, *requirements: str) -> Path:
    """The `bin` folder of a virtual environment of its own with these packages.

    Raises:
        Missing: they cannot be installed.
    """
    folder = CACHE / name
    marker = folder / ".installed"
    wanted = "\n".join(requirements)
    if not marker.exists() or marker.read_text() != wanted:
        print(f"installing {' '.join(requirements)} into {folder} (once)", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run(
            [*pip, *requirements], check=False, capture_output=True, text=True, timeout=_INSTALL_SECONDS
        )
        if done.returncode != 0:
            raise Missing(f"pip install {' '.join(requirements)} failed: {done.stderr.strip().splitlines()[-1:]}")
        marker.write_text(wanted)
    return folder / "bin"


def version(environment: Path, package: str) -> str:
    """The installed version of a package in such an environment."""
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    return subprocess.check_output([environment / "python", "-c", code], text=True).strip()
