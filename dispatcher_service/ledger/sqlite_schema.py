"""The SQLite file's tables, and how a file of an older version becomes one of this version.

`meta.version` is the schema's, `meta.oldest` the oldest version whose program may still use the file. A migration that
only adds (a column with a default, a table, an index) leaves `oldest` as it is, so that versions N and N+1 run side by
side on one file during a rollout (so statements name their columns); one that changes meaning raises it, and then older
programs refuse to start. Programs that run already do not look again: stop them before such a migration.
"""

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Migration:
    """One step. Applied once, in one transaction; `oldest` is the oldest version that may run beside its result."""

    version: int
    oldest: int
    statements: tuple[str, ...]


MIGRATIONS = (
    Migration(
        version=1,
        oldest=1,
        statements=(
            # period: 0 hour, 1 day, 2 month. cap: the limit last enforced there, NULL for none.
            """
            CREATE TABLE windows (
                tenant TEXT NOT NULL, period INTEGER NOT NULL, start INTEGER NOT NULL,
                spent INTEGER NOT NULL, reserved INTEGER NOT NULL, cap INTEGER,
                PRIMARY KEY (tenant, period, start)
            ) WITHOUT ROWID
            """,
            # state: 0 open, 1 started, 2 settled, 3 released, 4 expired. due_ms: when an open one expires and a closed
            # one is forgotten.
            """
            CREATE TABLE reservations (
                id TEXT NOT NULL PRIMARY KEY, tenant TEXT NOT NULL, model TEXT NOT NULL, state INTEGER NOT NULL,
                worst_case INTEGER NOT NULL, estimate INTEGER NOT NULL, charged INTEGER NOT NULL,
                hour INTEGER NOT NULL, day INTEGER NOT NULL, month INTEGER NOT NULL,
                expires_ms INTEGER NOT NULL, due_ms INTEGER NOT NULL
            ) WITHOUT ROWID
            """,
            "CREATE INDEX reservations_due ON reservations (due_ms)",
            # day: seconds since the epoch.
            """
            CREATE TABLE usage (
                tenant TEXT NOT NULL, day INTEGER NOT NULL, model TEXT NOT NULL, source TEXT NOT NULL,
                calls INTEGER NOT NULL, cost INTEGER NOT NULL, input INTEGER NOT NULL, cached_input INTEGER NOT NULL,
                cache_write INTEGER NOT NULL, output INTEGER NOT NULL, reasoning INTEGER NOT NULL,
                PRIMARY KEY (tenant, day, model, source)
            ) WITHOUT ROWID
            """,
            """
            CREATE TABLE overruns (
                tenant TEXT NOT NULL, cause TEXT NOT NULL, count INTEGER NOT NULL, amount INTEGER NOT NULL,
                PRIMARY KEY (tenant, cause)
            ) WITHOUT ROWID
            """,
            """
            CREATE TABLE documents (
                tenant TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, body BLOB NOT NULL, ends_ms INTEGER,
                PRIMARY KEY (tenant, name)
            ) WITHOUT ROWID
            """,
            "CREATE INDEX documents_by_end ON documents (ends_ms) WHERE ends_ms IS NOT NULL",
        ),
    ),
)


class SchemaTooNewError(Exception):
    """The file belongs to a version that this program must not run beside."""


def migrate(connection: sqlite3.Connection, migrations: tuple[Migration, ...] = MIGRATIONS) -> int:
    """Bring an open file up to the last of the migrations; returns its version, which may be higher than that.

    Must be called in autocommit mode. Several processes may do it at once: the first one wins, the others find it done.

    Raises:
        SchemaTooNewError: the file's `oldest` is above what this program knows.
        sqlite3.Error: the file cannot be used.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID"
        )
        meta: dict[str, int] = dict(connection.execute("SELECT name, value FROM meta"))
        version, oldest = meta.get("version", 0), meta.get("oldest", 0)
        known = migrations[-1].version
        if oldest > known:
            raise SchemaTooNewError(
                f"the ledger file has schema {version}, which programs of schema {oldest} or newer may use; "
                f"this one has {known}: upgrade it"
            )
        for migration in migrations:
            if migration.version <= version:
                continue
            for statement in migration.statements:
                connection.execute(statement)
            version, oldest = migration.version, migration.oldest
        connection.executemany(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            [("version", version), ("oldest", oldest)],
        )
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return version
