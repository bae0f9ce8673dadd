"""The training data folder, for tests that need real data and skip where there is none."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

FOLDER = Path(os.environ.get("POINTSMAN_DATA") or "no-data-folder")

_Test = TypeVar("_Test", bound=Callable[..., object])


def needed(test: _Test) -> _Test:
    """Mark a test with `data`, and skip it without the folder."""
    absent = pytest.mark.skipif(not (FOLDER / "eval").is_dir(), reason="POINTSMAN_DATA names no folder with eval/")
    marked: _Test = pytest.mark.data(absent(test))
    return marked
