"""A sketch finds prompts that were seen, in sets of any size, and no others."""

import pytest

from training import sketch

SEEN = [f"question number {place}" for place in range(5000)]
NEW = [f"another question {place}" for place in range(5000)]


def test_the_share_of_seen_prompts_is_found() -> None:
    made = sketch.make(SEEN)
    assert len(made) == sketch.SIZE * 8
    assert sketch.overlap(made, SEEN) == sketch.Overlap(sketch.SIZE, sketch.SIZE)
    assert sketch.overlap(made, NEW).seen == 0
    half = sketch.overlap(made, [*SEEN[:1000], *NEW[:1000]])
    assert half.comparable > 100
    assert half.share == pytest.approx(0.5, abs=0.15)


def test_a_small_set_is_known_whole() -> None:
    made = sketch.make(["One?", "Two?"])
    assert sketch.overlap(made, ["two", "three", "four", "TWO!"]) == sketch.Overlap(1, 3)
    assert sketch.overlap("", ["one"]).share == 0.0
