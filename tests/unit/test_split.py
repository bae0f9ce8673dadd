"""Rows to learn from and rows to measure on: whole, apart, and the same for the same seed."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from training.split import split
from training.tables import DataError


def _file(folder: Path, name: str) -> Path:
    prompts = [f"question {row}" for row in range(60)] + [f"{'passage ' * 40}question {row}" for row in range(40)]
    frame = pl.DataFrame({"prompt": prompts, "strong_correct": [1] * 100, "weak_correct": [0, 1] * 50})
    path = folder / name
    match path.suffix:
        case ".parquet":
            frame.write_parquet(path)
        case ".csv":
            frame.write_csv(path)
        case _:
            frame.write_ndjson(path)
    return path


@pytest.mark.parametrize("name", ["b.parquet", "b.csv", "b.jsonl"])
def test_both_parts_together_are_the_file(name: str, tmp_path: Path) -> None:
    divided = split(_file(tmp_path, name), labels=20, seed=1, out=tmp_path / "out")
    readers: dict[str, Any] = {".parquet": pl.read_parquet, ".csv": pl.read_csv, ".jsonl": pl.read_ndjson}
    labels, rest = (readers[Path(name).suffix](path) for path in (divided.labels, divided.rest))
    assert (len(labels), len(rest)) == (divided.labelled_rows, divided.rest_rows)
    assert labels.columns == rest.columns == ["prompt", "strong_correct", "weak_correct"]
    assert len({*labels["prompt"], *rest["prompt"]}) == 100


def test_prompts_that_begin_alike_stay_on_one_side(tmp_path: Path) -> None:
    file = _file(tmp_path, "b.parquet")
    for seed in range(5):
        divided = split(file, labels=20, seed=seed, out=tmp_path / str(seed))
        passages = pl.read_parquet(divided.labels)["prompt"].str.starts_with("passage").sum()
        assert passages in (0, 40)


def test_a_seed_gives_the_same_rows_and_another_seed_others(tmp_path: Path) -> None:
    file = _file(tmp_path, "b.parquet")
    first, again, other = (
        pl.read_parquet(split(file, labels=20, seed=seed, out=tmp_path / name).labels)["prompt"].to_list()
        for seed, name in ((1, "a"), (1, "b"), (2, "c"))
    )
    assert first == again != other


def test_more_labels_than_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 100 rows"):
        split(_file(tmp_path, "b.parquet"), labels=100, seed=0, out=tmp_path)
    with pytest.raises(DataError, match="missing"):
        split(tmp_path / "none.parquet", labels=1, seed=0, out=tmp_path)
