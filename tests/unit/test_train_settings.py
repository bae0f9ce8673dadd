"""`pointsman train --set NAME=VALUE` reaches the field it names, or says what is wrong."""

import dataclasses
from pathlib import Path

import pytest

from training.errors import TrainingError
from training.train import configure


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 10
    rate: float = 0.5
    resume: bool = False
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps must be at least 1")


def test_settings_take_the_type_of_their_field() -> None:
    settings = ["steps=3", "rate=1e-3", "resume=true", "checkpoint=some/where"]
    assert configure(Config, settings, seed=7) == Config(
        seed=7, steps=3, rate=1e-3, resume=True, checkpoint=Path("some/where")
    )
    assert configure(Config, ["checkpoint=none"], seed=0) == Config()


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("step=3", "steps, rate, resume, checkpoint"),
        ("steps", "NAME=VALUE"),
        ("seed=3", "steps, rate, resume, checkpoint"),
        ("steps=few", "'few' is no value of type int"),
        ("resume=yes", "'yes' is no value of type bool"),
        ("steps=0", "steps must be at least 1"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(setting: str, complaint: str) -> None:
    with pytest.raises(TrainingError, match=complaint):
        configure(Config, [setting], seed=0)
