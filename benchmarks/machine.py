"""Where a benchmark runs: the machine in words, and which of its cores does what.

What is measured has the first core for itself; the load generator and everything that both sides use (upstream, scorer)
share the others. With a single core nothing is pinned, and the numbers hold the generator's own time.
"""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

_CORES = sorted(os.sched_getaffinity(0))
MEASURED = frozenset(_CORES[:1])
"""For the process under test."""
REST = frozenset(_CORES[1:] or _CORES)
"""For all others."""
EVERY = frozenset(_CORES)


@contextlib.contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """Processes that are started within run on these cores, and so does this thread."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def description() -> str:
    """Processor, cores, memory, system and Python in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    return f"{processor}, {len(_CORES)} cores, {memory:.0f} GiB, {system}, Python {platform.python_version()}"


def load() -> float:
    """The 1-minute load average: what else ran while a benchmark did."""
    return os.getloadavg()[0]
