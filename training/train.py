"""One way to train a router of any kind.

A kind of `kinds.KINDS` is a module `training.fit_KIND` with a frozen dataclass `Config`, whose fields are the kind's
settings and go into the manifest, and a function `fit(data, out, config, progress)`. The module is imported when it
is asked for: no kind needs another's packages.
"""

import dataclasses
import importlib
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from scorer_service.artifact import ScorerArtifact
from training.errors import TrainingError

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all) as a fit goes on."""


class SettingError(TrainingError):
    """`--set` names no setting of the kind, or its value does not fit. The message says which do."""


def no_progress(_task: str, _done: int, _total: int) -> None:
    """Tells nobody."""


def train(
    kind: str, data: Path, out: Path, settings: Sequence[str] = (), *, seed: int = 0, progress: Progress = no_progress
) -> ScorerArtifact:
    """Train a router of this kind on the data folder and write its artefact.

    Args:
        kind: one of `kinds.KINDS`.
        data: holds `eval/` and `train/` as its README lays them out.
        out: directory of the artefact, made or overwritten.
        settings: `NAME=VALUE` for fields of the kind's `Config`.
        seed: of every random choice.

    Raises:
        TrainingError: a setting, the data or the result is not what it should be.
    """
    module = importlib.import_module(f"training.fit_{kind}")
    artifact: ScorerArtifact = module.fit(data, out, configure(module.Config, settings, seed=seed), progress)
    return artifact


def configure(config: type[Any], settings: Sequence[str], *, seed: int) -> Any:
    """A `config` with these `NAME=VALUE` settings, each of its field's type, and the defaults for the rest.

    Raises:
        SettingError: a text is not of that form, or the field is not there, or the value does not fit.
    """
    types = typing.get_type_hints(config)
    names = [field.name for field in dataclasses.fields(config) if field.name != "seed"]
    chosen: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if name not in names or not equals:
            raise SettingError(f"--set {setting}: write NAME=VALUE with one of these names: {', '.join(names)}")
        try:
            chosen[name] = _value(types[name], text)
        except ValueError:
            raise SettingError(f"--set {setting}: {text!r} is no value of type {_type_name(types[name])}") from None
    try:
        return config(seed=seed, **chosen)
    except ValueError as error:
        raise SettingError(f"--set: {error}") from error


def _value(kind: Any, text: str) -> Any:
    """Read a text as one of the types of settings: str, int, float, bool, Path or Literal of texts, or None."""
    alternatives = typing.get_args(kind)
    if type(None) in alternatives:
        return None if text == "none" else _value(alternatives[0], text)
    if typing.get_origin(kind) is Literal:
        if text not in alternatives:
            raise ValueError(text)
        return text
    if kind is bool:
        if text not in {"true", "false"}:
            raise ValueError(text)
        return text == "true"
    return kind(text)


def _type_name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))
