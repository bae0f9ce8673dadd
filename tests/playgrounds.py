"""`pointsman playground` as its own process, for tests, measurements and screenshots."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.processes import ROOT

STOP_SECONDS = 30.0


@contextmanager
def playground(*arguments: str, key: str = "") -> Iterator[str]:
    """The page's URL while it runs on a free port; with no `key`, no OPENAI_API_KEY of ours is passed on."""
    process = start(*arguments, key=key)
    try:
        yield wait_for_url(process)
    finally:
        stop(process)


def start(*arguments: str, key: str = "") -> subprocess.Popen[str]:
    """The process, started; its output is standard output and error together."""
    env = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    return subprocess.Popen(
        [sys.executable, "-m", "pointsman.cli", "playground", "--listen", "127.0.0.1:0", *arguments],
        cwd=ROOT,
        env={**env, **({"OPENAI_API_KEY": key} if key else {}), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


def wait_for_url(process: subprocess.Popen[str]) -> str:
    """The URL that it prints.

    Raises:
        AssertionError: it ended before that; shows what it wrote.
    """
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("playground "):
            return line.split()[1]
    raise AssertionError("no playground:\n" + "".join(lines))


def stop(process: subprocess.Popen[str]) -> int:
    """SIGTERM, then the exit code."""
    assert process.stdout is not None
    try:
        process.terminate()
        return process.wait(STOP_SECONDS)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
