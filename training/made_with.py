"""What every manifest says of the way an artefact was made: its settings, and the versions that decide its numbers."""

import dataclasses
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime


def settings(config: Any) -> Mapping[str, Any]:
    """A kind's settings as the manifest holds them: of a path its last part, since the rest is the machine's own."""
    return {
        name: value.name if isinstance(value, Path) else value for name, value in dataclasses.asdict(config).items()
    }


def versions() -> Mapping[str, str]:
    """Of what the numbers depend on beside data and settings."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
