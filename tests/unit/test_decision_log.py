"""Files of the decision log: closed by size and age, deleted after a while, shared by processes."""

import os
from pathlib import Path

import pytest

from dispatcher_service.records.decision_log import FileLines


class Files:
    """A log in `folder` under a clock that stands still."""

    def __init__(self, folder: Path, **changes: float) -> None:
        self.path = folder / "decisions.jsonl"
        self.now = 1e9
        self.changes = {"max_bytes": 1000, "max_age": 3600.0, "keep": 0.0, **changes}

    def open(self) -> FileLines:
        return FileLines(
            self.path,
            max_bytes=int(self.changes["max_bytes"]),
            max_age=self.changes["max_age"],
            keep=self.changes["keep"],
            clock=lambda: self.now,
        )

    def closed(self) -> list[Path]:
        return sorted(self.path.parent.glob("decisions.jsonl.*"))


def test_a_full_file_is_closed_before_the_next_lines(tmp_path: Path) -> None:
    files = Files(tmp_path, max_bytes=10)
    lines = files.open()
    lines.write(["12345", "1234"])
    assert files.closed() == []
    files.now += 1
    lines.write(["next"])
    assert [path.name for path in files.closed()] == ["decisions.jsonl.20010909T014641.000000Z"]
    assert files.closed()[0].read_text() == "12345\n1234\n"
    assert files.path.read_text() == "next\n"
    lines.close()


def test_an_old_file_is_closed_and_an_empty_one_is_not(tmp_path: Path) -> None:
    files = Files(tmp_path, max_age=60)
    lines = files.open()
    files.now += 61
    lines.write(["late, but the first"])
    assert files.closed() == []
    files.now += 61
    lines.write(["second"])
    assert len(files.closed()) == 1
    lines.close()


def test_closed_files_are_deleted_when_their_time_is_over(tmp_path: Path) -> None:
    files = Files(tmp_path, max_bytes=1, keep=100)
    lines = files.open()
    for _ in range(3):
        files.now += 60
        lines.write(["x"])
        os.utime(files.path, (files.now, files.now))
    # Lines came at 60, 120 and 180 seconds. At 180 the file with the first was 120 old, the one with the second 60.
    assert len(files.closed()) == 1
    lines.close()


def test_what_is_due_is_done_without_lines_too(tmp_path: Path) -> None:
    files = Files(tmp_path, max_age=60, keep=100)
    lines = files.open()
    lines.write(["x"])
    os.utime(files.path, (files.now, files.now))
    files.now += 61
    lines.tend()
    assert len(files.closed()) == 1
    assert files.path.read_text() == ""
    files.now += 61
    lines.tend()
    assert files.closed() == []
    lines.close()


def test_two_processes_share_a_file_whoever_closes_it(tmp_path: Path) -> None:
    files = Files(tmp_path, max_bytes=10)
    one, two = files.open(), files.open()
    one.write(["from one, long enough"])
    files.now += 1
    two.write(["from two"])
    one.write(["again"])
    assert files.path.read_text() == "from two\nagain\n"
    assert len(files.closed()) == 1
    one.close()
    two.close()


def test_a_restart_appends(tmp_path: Path) -> None:
    files = Files(tmp_path)
    for line in ("before", "after"):
        lines = files.open()
        lines.write([line])
        lines.close()
    assert files.path.read_text() == "before\nafter\n"


def test_a_folder_that_is_not_there_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Files(tmp_path / "nowhere").open()


def test_a_full_file_that_another_process_has_just_renamed_is_left_alone(tmp_path: Path) -> None:
    files = Files(tmp_path, max_bytes=10)
    lines = files.open()
    lines.write(["a full file"])
    files.path.rename(tmp_path / "decisions.jsonl.1")
    files.path.write_text("")
    lines.tend()
    assert files.closed() == [tmp_path / "decisions.jsonl.1"]
    lines.close()
