"""The SQLite file under the ledger: one connection, transactions one at a time, and its log kept short.

*Durability*: write-ahead log with `synchronous=NORMAL`: what was granted or settled survives the kill of any process,
and a power cut or kernel crash can lose the last moments (since the last checkpoint at most). `durable=True` is
`synchronous=FULL`, which survives those too and costs some milliseconds per step instead of some microseconds.
The file must lie on a local disk: SQLite's locks do not hold on network file systems.

*Waiting*: a step takes microseconds, so it runs on the event loop itself. Another process's lock is not waited for
inside SQLite, which would hold up the loop, but by trying again until `timeout`. Checkpoints, which wait for the disk,
run in a thread.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dispatcher_service.errors import LedgerUnavailable
from dispatcher_service.ledger.sqlite_schema import Migration, SchemaTooNewError, migrate

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 0.001
_CHECKPOINT_STEPS = 2_000
"""Steps between two checkpoints of this process: some 16 MB of log."""
_LONG_LOG_PAGES = 65_536
"""Of 1 KiB. A log of this length has to begin anew, for which calls wait until the disk has it: rarely, then."""
_LAST_RESORT_PAGES = 4 * _LONG_LOG_PAGES
"""Log length at which SQLite checkpoints by itself, should the thread not have got there."""

_T = TypeVar("_T")


class SqliteFile:
    """One process's hold of the file. `db` is for within a step alone."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float],
        timeout: float,
        durable: bool,
        migrations: tuple[Migration, ...],
    ) -> None:
        """Open or create the file. Arguments are those of `SqliteLedger`.

        Raises:
            LedgerUnavailable: it cannot be opened, or belongs to a version that this one must not run beside.
        """
        self._clock = clock
        self._timeout = timeout
        self._path = path
        self._steps = 0
        self._checkpoint: asyncio.Future[None] | None = None
        try:
            self.db = sqlite3.connect(path, timeout=timeout, isolation_level=None)
            # Only for a new file. A commit appends whole pages to the log, and the rows here are small.
            self.db.execute("PRAGMA page_size = 1024")
            self.db.execute("PRAGMA journal_mode = WAL")
            self.db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self.db.execute(f"PRAGMA wal_autocheckpoint = {_LAST_RESORT_PAGES}")
            # What is deleted is overwritten with zeros: documents may hold text that somebody has erased.
            self.db.execute("PRAGMA secure_delete = ON")
            migrate(self.db, migrations)
            # From here on locks are waited for in `step`, off the event loop.
            self.db.execute("PRAGMA busy_timeout = 0")
        except (sqlite3.Error, SchemaTooNewError) as error:
            raise LedgerUnavailable(f"{path}: {error}") from error

    async def step(self, step: Callable[[int], _T]) -> _T:
        """Run `step(now in ms)` in a transaction that holds the file's write lock from its beginning."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                self.db.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.Error as error:
                busy = isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() >= deadline:
                    raise LedgerUnavailable(f"SQLite: {error}") from error
                await asyncio.sleep(_RETRY_SECONDS)
        try:
            # The clock is read under the lock: no other process can have gone on to a later window in between.
            result = step(int(self._clock() * 1000))
            self.db.execute("COMMIT")
        except BaseException as error:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise LedgerUnavailable(f"SQLite: {error}") from error
            raise
        self._steps += 1
        if self._steps % _CHECKPOINT_STEPS == 0 and (self._checkpoint is None or self._checkpoint.done()):
            self._checkpoint = asyncio.get_running_loop().run_in_executor(None, self._copy_log)
        return result

    async def scrub(self) -> None:
        """Leave nothing of what was deleted. The log beside the file holds pages from before: it is emptied."""
        emptied = await asyncio.get_running_loop().run_in_executor(None, self._empty_log)
        if not emptied:
            raise LedgerUnavailable(f"{self._path}-wal is in use and could not be emptied: erase again")

    async def close(self) -> None:
        """Let go of it."""
        if self._checkpoint is not None:
            await self._checkpoint
        self.db.close()

    def _copy_log(self) -> None:
        """Checkpoint, beside the writers. Where they pause, the next one begins the log anew by itself."""
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=0.1)) as db:
                (_, pages, _) = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if pages >= _LONG_LOG_PAGES:
                    # What came meanwhile once more, so that little is left to do under the lock.
                    db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                    db.execute("PRAGMA wal_checkpoint(RESTART)")
        except sqlite3.Error:
            logger.warning("a checkpoint of the ledger file failed: the log grows until one succeeds", exc_info=True)

    def _empty_log(self) -> bool:
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=self._timeout)) as db:
                (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"SQLite: {error}") from error
        return not busy
