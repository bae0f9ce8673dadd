"""Fine-tuning in torch: batches planned ahead, the same numbers for the same seed, and a checkpoint to go on from.

All that training depends on is a function of the settings and the step, so that a run that was stopped and goes on
ends with the weights of one that was not.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.errors import TrainingError
from training.train import Progress

Tensor = Any
"""A torch.Tensor; torch is absent where types are checked."""

Logits = Callable[[Mapping[str, Tensor], Tensor, Tensor], Tensor]
"""(weights, input_ids, attention_mask) -> logits [batch, classes]."""

Frozen = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""(weights, input_ids [1, tokens]) -> states [1, tokens, width]: the part of a model that training does not change."""


class OtherCheckpointError(TrainingError):
    """The checkpoint belongs to a run with other settings or data."""


@dataclass(frozen=True, slots=True)
class Examples:
    """What is learnt.

    Attributes:
        rows: token ids of each example.
        targets: distribution over the classes, [examples, classes].
        weights: chance of each to be drawn, of sum 1.
    """

    rows: Sequence[Sequence[int]]
    targets: NDArray[np.float64]
    weights: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """AdamW with a linear rise over the first tenth of the steps and a linear fall to nothing."""

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    seed: int
    checkpoint_every: int = 50


def fine_tune(
    weights: Mapping[str, NDArray[np.float32]],
    trained: Sequence[str],
    logits: Logits,
    examples: Examples,
    *,
    schedule: Schedule,
    pad_id: int,
    checkpoint: Path | None,
    progress: Progress,
    frozen: Frozen | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Minimise the cross-entropy to the targets.

    Args:
        weights: all that `logits` reads.
        trained: names of those that change.
        logits: the model.
        examples: drawn with replacement, by their weights.
        schedule: see there.
        pad_id: fills up a batch.
        checkpoint: file that is written now and then, and read first if it is there; None keeps nothing.
        progress: told of every step.
        frozen: runs once per example, and `logits` gets what it gives in place of `input_ids`. It must read no trained
            tensor.

    Returns:
        The trained tensors by name.

    Raises:
        OtherCheckpointError: the checkpoint is of another run.
    """
    torch.use_deterministic_algorithms(mode=True)
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
    parameters = [tensors[name].requires_grad_() for name in trained]
    optimiser = torch.optim.AdamW(parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    run = _fingerprint(examples, schedule, trained)
    first = _resume(checkpoint, run, tensors, trained, optimiser)
    batches = _plan(examples, schedule)
    inputs = _Inputs(tensors, examples.rows, frozen, pad_id)
    for step in range(first, schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate * _rate(step, schedule.steps)
        target = torch.from_numpy(examples.targets[batches[step]]).float()
        loss = torch.nn.functional.cross_entropy(logits(tensors, *inputs.batch(batches[step])), target)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        done = step + 1
        progress("fine-tuning", done, schedule.steps)
        if checkpoint is not None and (done % schedule.checkpoint_every == 0 or done == schedule.steps):
            state = {"run": run, "step": done, "optimiser": optimiser.state_dict()}
            _save(checkpoint, state | {"weights": {name: tensors[name].detach() for name in trained}})
    return {name: tensors[name].detach().numpy().copy() for name in trained}


class _Inputs:
    """Batches of examples; what the frozen part makes of one is kept, since it will be the same next time."""

    def __init__(
        self, tensors: Mapping[str, Tensor], rows: Sequence[Sequence[int]], frozen: Frozen | None, pad_id: int
    ) -> None:
        self._tensors = tensors
        self._rows = rows
        self._frozen = frozen
        self._pad_id = pad_id
        self._states: dict[int, Tensor] = {}

    def batch(self, chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """`input_ids` or the frozen part's states, and `attention_mask`."""
        ids, mask = padded([self._rows[row] for row in chosen], self._pad_id)
        if self._frozen is None:
            return ids, mask
        states = [self._state(int(row)) for row in chosen]
        # What stands where the padding is matters to no token that counts.
        return torch.nn.utils.rnn.pad_sequence(states, batch_first=True), mask

    def _state(self, row: int) -> Tensor:
        if row not in self._states:
            assert self._frozen is not None
            with torch.no_grad():
                self._states[row] = self._frozen(self._tensors, torch.tensor([list(self._rows[row])]))[0]
        return self._states[row]


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """`input_ids` and `attention_mask` of a batch, padded on the right."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(rows), longest), dtype=torch.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(list(row))
        mask[place, : len(row)] = 1
    return ids, mask


def evaluate(
    weights: Mapping[str, NDArray[np.float32]],
    logits: Logits,
    rows: Sequence[Sequence[int]],
    *,
    pad_id: int,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Logits of many inputs, each alone, so that none depends on its neighbours. [inputs, classes]."""
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
    found = []
    with torch.inference_mode():
        for place, row in enumerate(rows):
            found.append(logits(tensors, *padded([row], pad_id))[0].double().numpy())
            if progress is not None:
                progress("calibrating", place + 1, len(rows))
    return np.stack(found)


def _plan(examples: Examples, schedule: Schedule) -> list[NDArray[np.int64]]:
    """The examples of every step; those of a batch have like lengths, so that little of it is padding."""
    generator = np.random.default_rng(schedule.seed)
    drawn = generator.choice(len(examples.rows), schedule.steps * schedule.batch, p=examples.weights)
    lengths = np.array([len(row) for row in examples.rows])[drawn]
    batches = drawn[np.argsort(lengths, kind="stable")].reshape(schedule.steps, schedule.batch)
    return list(batches[generator.permutation(schedule.steps)])


def _rate(step: int, steps: int) -> float:
    rise = max(1, steps // 10)
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise))


def _fingerprint(examples: Examples, schedule: Schedule, trained: Sequence[str]) -> str:
    digest = hashlib.sha256(repr((schedule, sorted(trained))).encode())
    digest.update(examples.targets.tobytes() + examples.weights.tobytes())
    for row in examples.rows:
        digest.update(np.array(row, np.int64).tobytes())
    return digest.hexdigest()


def _resume(path: Path | None, run: str, tensors: Mapping[str, Tensor], trained: Sequence[str], optimiser: Any) -> int:
    """Load what a checkpoint holds; returns the steps that are done."""
    if path is None or not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    if state["run"] != run:
        raise OtherCheckpointError(f"{path} is of a run with other settings or data: remove it, or use those again")
    with torch.no_grad():
        for name in trained:
            tensors[name].copy_(state["weights"][name])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def _save(path: Path, state: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    torch.save(dict(state), draft)
    draft.replace(path)
