"""Data files to frames, and what becomes of rows that cannot be used.

A bad row is counted and named with its place and reason. Few of them are left out; many are an error, since a file
that is mostly unreadable is not the file that somebody meant.
"""

import csv
import dataclasses
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from training.errors import TrainingError

LINE = "#line"
"""The column that holds each row's place: the line on which it begins, or its number in a parquet file. From 1."""

MAX_BAD_SHARE = 0.01

_SHOWN = 5
_LONGEST_FIELD = 2**31 - 1
"""Of a CSV file; the csv module's own bound is 128 KiB, which long conversations pass."""


class DataError(TrainingError):
    """A data file cannot be used. The message names the file, what is wrong and the mend."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was left out."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Table:
    """A file's good rows, with their places in column `LINE`, and its bad ones.

    Attributes:
        path: of the file.
        frame: good rows. Text files have text columns only; an empty field is null.
        bad: in no order.
        place: what `LINE` counts: `line` or `row`.
    """

    path: Path
    frame: pl.DataFrame
    bad: tuple[BadRow, ...] = ()
    place: str = "line"

    @property
    def rows(self) -> int:
        """Good and bad ones."""
        return len(self.frame) + len(self.bad)

    def sift(self, *checks: tuple[pl.Expr, pl.Expr | str]) -> "Table":
        """Leave out rows that fail a check.

        Args:
            checks: of each, an expression that is true for a bad row (null counts as bad), and the reason. The first
                that fails gives a row its reason.
        """
        if not checks:
            return self
        reasons = [
            pl.when(failed.fill_null(value=True)).then(pl.lit(reason) if isinstance(reason, str) else reason)
            for failed, reason in checks
        ]
        judged = self.frame.with_columns(pl.coalesce(*reasons).alias("#reason"))
        failed = judged.filter(pl.col("#reason").is_not_null())
        bad = [BadRow(line, reason) for line, reason in failed.select(LINE, "#reason").rows()]
        good = judged.filter(pl.col("#reason").is_null()).drop("#reason")
        return dataclasses.replace(self, frame=good, bad=(*self.bad, *bad))

    def bad_summary(self) -> str:
        """One line: how many bad rows, and the first few of them. Empty if there is none."""
        if not self.bad:
            return ""
        first = sorted(self.bad, key=lambda row: row.line)
        shown = "; ".join(f"{self.place} {row.line}: {row.reason}" for row in first[:_SHOWN])
        rest = f"; and {len(first) - _SHOWN} more" if len(first) > _SHOWN else ""
        return f"{self.path}: {len(first)} of {self.rows} rows cannot be used ({shown}{rest})"

    def require(self, max_bad_share: float) -> None:
        """Refuse a file with too many bad rows, or without any good one.

        Raises:
            DataError: it is refused.
        """
        if self.bad and len(self.bad) > max_bad_share * self.rows:
            raise DataError(
                f"{self.bad_summary()}: mend them, or allow more than {max_bad_share:.2%} with --max-bad-share"
            )
        if not len(self.frame):
            raise DataError(f"{self.path} has no rows")


def read_table(path: Path) -> Table:
    """Read CSV, parquet or JSON lines, by the file's suffix.

    Raises:
        DataError: the file is missing, of another kind, or as a whole not what its suffix says.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing")
    try:
        match path.suffix.lower():
            case ".parquet":
                frame = pl.read_parquet(path).with_row_index(LINE, offset=1)
                return Table(path, frame.cast({LINE: pl.Int64}), place="row")
            case ".csv":
                return _csv(path)
            case ".jsonl" | ".ndjson" | ".json" | ".log":
                return _json_lines(path)
    except (pl.exceptions.PolarsError, csv.Error, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as {path.suffix[1:]}: {_first_line(error)}") from error
    raise DataError(f"{path} is no .csv, .parquet or .jsonl file")


def read_records(path: Path, schema: pl.Schema) -> Table:
    """Read JSON lines of which only the parts in `schema` matter; what a line lacks is null.

    Raises:
        DataError: as `read_table`, or a part is of another type.
    """
    try:
        return _json_lines(path, schema)
    except (pl.exceptions.PolarsError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as JSON lines: {_first_line(error)}") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank.

    Raises:
        DataError: the file is missing or not UTF-8.
    """
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {_first_line(error)}") from error


def write_rows(source: Path, lines: Sequence[int], out: Path) -> None:
    """Copy some rows of a file to another of the same kind, with all their columns.

    Args:
        source: to read.
        lines: the rows' places, as in column `LINE`.
        out: to write.

    Raises:
        DataError: the two files are not of one kind.
    """
    if source.suffix.lower() != out.suffix.lower():
        raise DataError(f"{out} must be a {source.suffix} file, as {source} is")
    frame = read_table(source).frame.filter(pl.col(LINE).is_in(list(lines))).drop(LINE)
    match out.suffix.lower():
        case ".parquet":
            frame.write_parquet(out, compression="zstd")
        case ".csv":
            frame.write_csv(out)
        case _:
            frame.write_ndjson(out)


def fingerprint(path: Path) -> str:
    """SHA-256 of the file, in hex: what a manifest remembers of its training data."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _csv(path: Path) -> Table:
    csv.field_size_limit(_LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, None)
        if header is None or len(set(header)) < len(header):
            raise DataError(f"{path} has no header line, or one that names a column twice")
        rows: list[list[str]] = []
        lines: list[int] = []
        bad: list[BadRow] = []
        begin = reader.line_num + 1
        for row in reader:
            if len(row) == len(header):
                rows.append(row)
                lines.append(begin)
            elif row:  # a blank line is no row
                bad.append(BadRow(begin, f"has {len(row)} fields, and the header {len(header)}"))
            begin = reader.line_num + 1
    frame = pl.DataFrame(rows, schema=dict.fromkeys(header, pl.String), orient="row")
    frame = frame.with_columns(pl.all().replace("", None), pl.Series(LINE, lines, pl.Int64))
    return Table(path, frame, tuple(bad))


def _json_lines(path: Path, schema: pl.Schema | None = None) -> Table:
    text = path.read_text(encoding="utf-8").split("\n")
    lines = pl.DataFrame({"text": text}).with_row_index(LINE, offset=1).cast({LINE: pl.Int64})
    lines = lines.filter(pl.col("text").str.strip_chars() != "")
    table = Table(path, lines).sift((pl.col("text").str.json_path_match("$").is_null(), "is no JSON"))
    objects = table.sift((~pl.col("text").str.strip_chars().str.starts_with("{"), "is no JSON object"))
    if not len(objects.frame):
        return objects
    content = io.BytesIO("\n".join(objects.frame["text"]).encode())
    frame = pl.read_ndjson(content, schema=schema, infer_schema_length=None)
    return dataclasses.replace(objects, frame=frame.with_columns(objects.frame[LINE]))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def names(columns: Sequence[str]) -> str:
    """Column names for a message, shortened where there are many."""
    shown = ", ".join(column for column in columns[:12] if column != LINE)
    return shown + (", …" if len(columns) > 12 else "")
