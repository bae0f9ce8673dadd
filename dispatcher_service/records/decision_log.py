"""Where the lines of the decision log go: a file that is rotated, standard output, or nowhere.

A sink's methods block and are called from one thread that is not the event loop's (see `recorder`). What cannot be
written raises `OSError`; losing it is the caller's to count. OTLP is another sink, in `decision_log_otlp`.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Protocol


class Lines(Protocol):
    """Takes lines of JSON."""

    def write(self, lines: Sequence[str]) -> None:
        """Append lines, none of which has a line break.

        Raises:
            OSError: some of them may be lost.
        """

    def tend(self) -> None:
        """Called every minute without lines: do what is due by the clock.

        Raises:
            OSError: it could not be done.
        """

    def close(self) -> None:
        """Write out what is held back, and let go."""


class StdoutLines:
    """Standard output, which is this process's own, or its workers' together."""

    def write(self, lines: Sequence[str]) -> None:
        # One write per line: workers share the pipe, and what is longer than PIPE_BUF may be cut by another's line.
        for line in lines:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

    def tend(self) -> None:
        pass

    def close(self) -> None:
        pass


class FileLines:
    """Appends to a file, and starts a new one when it is too large or too old. Old ones are deleted after a while.

    A full file is renamed to `NAME.20261124T081933.123456Z`, the time at which it was closed. Several processes may
    share the file: each line is appended whole, and whoever finds it renamed opens the new one.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        max_age: float,
        keep: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open or create the file.

        Args:
            path: where lines are appended.
            max_bytes: size beyond which the file is closed.
            max_age: seconds after its beginning when it is closed.
            keep: seconds that closed files are kept; 0 keeps them for good.
            clock: seconds since the epoch.

        Raises:
            OSError: it cannot be opened for appending.
        """
        self._path = path
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._keep = keep
        self._clock = clock
        self._file = self._open()

    def write(self, lines: Sequence[str]) -> None:
        if self._was_renamed():
            self._file.close()
            self._file = self._open()
        if self._is_full():
            self._rotate()
        # One system call per batch: with O_APPEND the lines of several processes do not mix.
        batch = "".join(f"{line}\n" for line in lines).encode()
        if self._file.write(batch) != len(batch):
            raise OSError("the file took a part of the lines only: is the disk full?")

    def tend(self) -> None:
        if self._is_full():
            self._rotate()
        else:
            self._forget_old()

    def close(self) -> None:
        self._file.close()

    def _open(self) -> FileIO:
        opened = self._path.open("ab", buffering=0)
        # An empty file begins now. Where the system knows no time of birth, a restart counts from the last line.
        status = os.fstat(opened.fileno())
        self._begun = self._clock() if status.st_size == 0 else getattr(status, "st_birthtime", status.st_mtime)
        return opened

    def _was_renamed(self) -> bool:
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return True

    def _is_full(self) -> bool:
        size = os.fstat(self._file.fileno()).st_size
        return size > 0 and (size >= self._max_bytes or self._clock() - self._begun >= self._max_age)

    def _rotate(self) -> None:
        now = self._clock()
        closed_at = datetime.fromtimestamp(now, tz=UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        if not self._was_renamed():
            # Another process may be quicker still: then there is nothing left to rename.
            with suppress(FileNotFoundError):
                self._path.rename(self._path.with_name(f"{self._path.name}.{closed_at}"))
        self._file.close()
        self._file = self._open()
        self._forget_old()

    def _forget_old(self) -> None:
        now = self._clock()
        if self._keep == 0:
            return
        for old in self._path.parent.glob(f"{self._path.name}.*Z"):
            # Another process may have been quicker.
            with suppress(FileNotFoundError):
                if now - old.stat().st_mtime > self._keep:
                    old.unlink()
