"""One line per request, for people and for training. It holds no text of conversations."""

import logging
import sys
from pathlib import Path
from typing import TextIO

from pointsman.runtime.logs import fields

logger = logging.getLogger(__name__)


class DecisionLog:
    """Appends lines to a file or to standard output.

    A line that cannot be written is lost: answering a caller who has paid comes first. The first loss is logged.
    """

    def __init__(self, destination: str) -> None:
        """`destination` is `none`, `stdout` or a path.

        Raises:
            OSError: the file cannot be opened for appending.
        """
        self._file: TextIO | None = None
        if destination == "stdout":
            self._file = sys.stdout
        elif destination != "none":
            # Line-buffered: after a kill the log ends with a whole line, and readers can follow it.
            self._file = Path(destination).open("a", buffering=1, encoding="utf-8")  # noqa: SIM115
        self._lost = 0

    @property
    def enabled(self) -> bool:
        """False if lines go nowhere, so that making them can be skipped."""
        return self._file is not None

    def write(self, line: str) -> None:
        """Append one line; `line` has no line break."""
        if self._file is None:
            return
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            if self._lost == 0:
                logger.error("the decision log cannot be written: records are lost", extra=fields(error=str(error)))
            self._lost += 1

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and self._file is not sys.stdout:
            self._file.close()
