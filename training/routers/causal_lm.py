"""`causal_lm`: a fine-tuned decoder that grades the weak model's answer before it is given (RouteLLM, section 4.4).

An instruction with the prompt, then the next token: its distribution over the five label tokens 1 to 5 is read in one
forward pass. Grades 1 to 3 say that the strong model's answer would be better: p = p₁ + p₂ + p₃, which counts no tie,
and is calibrated to a win, a tie counting one half.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from tokenizers import Tokenizer

from scorer_service.preprocess import PreprocessSpec
from training import fine_tuning, llama_graph, torch_llama
from training.bert_graph import CheckpointError, Tensors
from training.fine_tuning import Tensor
from training.llama_checkpoint import EMBEDDINGS, LlamaCheckpoint
from training.logit_curve import LogitCurve
from training.onnx_graph import GraphBuilder

KIND = "causal_lm"
LABELS = ("1", "2", "3", "4", "5")

PREFIX = (
    "<|im_start|>system\nGrade how well a small model would answer, from 1 (badly) to 5 (as well as the best)."
    "<|im_end|>\n<|im_start|>user\n"
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\nGrade: "

HEAD = "labels.weight"
"""Name of the five label tokens' rows of the output layer, [5, width], which are fine-tuned apart from the rest."""


@dataclass(frozen=True, slots=True)
class CausalLmRouter:
    """A fine-tuned decoder. `tensors` are the checkpoint's with what was trained, and `HEAD`."""

    checkpoint: LlamaCheckpoint
    tensors: Tensors
    max_tokens: int
    curve: LogitCurve
    eight_bits: bool

    kind: str = field(default=KIND, init=False)

    @property
    def preprocess(self) -> PreprocessSpec:
        return preprocess(self.checkpoint, self.max_tokens)

    @property
    def tokenizer_json(self) -> str:
        return self.checkpoint.tokenizer_json

    def logits(self, weights: Mapping[str, Tensor], input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The forward pass in torch: [batch, 5]."""
        return logits(self.checkpoint, weights, input_ids, attention_mask)

    def win_probability(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """What torch says about prompts given as token ids. [prompts]."""
        found = fine_tuning.evaluate(self.tensors, self.logits, rows, pad_id=self.checkpoint.pad_id)
        return self.curve(log_odds(found)).astype(np.float32)

    def onnx(self) -> onnx.ModelProto:
        """The graph that is served."""
        graph = GraphBuilder()
        ids, mask = (graph.input(name, ["batch", "tokens"]) for name in ("input_ids", "attention_mask"))
        model = (self.checkpoint.shape, self.tensors)
        state = llama_graph.add_last_state(graph, model, ids, mask, eight_bits=self.eight_bits)
        found = graph.op("MatMul", state, graph.floats(self.tensors[HEAD].T, "head"))
        sides = graph.op("MatMul", graph.op("Softmax", found, axis=-1), graph.floats(_SIDES))
        return graph.build({"win_probability": (self.curve.add_odds(graph, sides), ["batch"])}, KIND)


_SIDES = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 2)
"""What each grade gives to the strong model and to the weak one."""


def preprocess(checkpoint: LlamaCheckpoint, max_tokens: int) -> PreprocessSpec:
    """The template around the prompt. A long prompt loses its beginning: what is asked stands at the end."""
    return PreprocessSpec(
        version=2,
        max_tokens=min(max_tokens, checkpoint.shape.positions),
        truncation_side="left",
        pad_id=checkpoint.pad_id,
        add_special_tokens=False,
        prefix=PREFIX,
        suffix=SUFFIX,
    )


def label_rows(checkpoint: LlamaCheckpoint) -> NDArray[np.float32]:
    """The output layer's rows of the label tokens, [5, width].

    Raises:
        CheckpointError: the tokenizer has not one token for each label.
    """
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json)
    found = [tokenizer.token_to_id(label) for label in LABELS]
    tokens = [token for token in found if token is not None]
    if len(tokens) < len(LABELS):
        raise CheckpointError("the tokenizer has no single tokens for the grades 1 to 5: choose another checkpoint")
    rows: NDArray[np.float32] = checkpoint.output[tokens].copy()
    return rows


def logits(checkpoint: LlamaCheckpoint, weights: Mapping[str, Tensor], ids: Tensor, mask: Tensor) -> Tensor:
    """The forward pass in torch with these weights: [batch, 5]."""
    return torch_llama.last_state(weights, checkpoint.shape, ids, mask) @ weights[HEAD].T


def upper_logits(
    checkpoint: LlamaCheckpoint, weights: Mapping[str, Tensor], hidden: Tensor, mask: Tensor, first: int
) -> Tensor:
    """The rest of the forward pass, from hidden states [batch, tokens, width] before layer `first`: [batch, 5]."""
    shape = checkpoint.shape
    top = torch_llama.layers(weights, shape, hidden, range(first, shape.layers))
    return torch_llama.last_of(weights, shape, top, mask) @ weights[HEAD].T


def lower_states(checkpoint: LlamaCheckpoint, weights: Mapping[str, Tensor], ids: Tensor, first: int) -> Tensor:
    """Hidden states before layer `first`: [batch, tokens, width]."""
    return torch_llama.layers(weights, checkpoint.shape, weights[EMBEDDINGS][ids], range(first))


def log_odds(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln(p / (1 − p)) of p = p₁ + p₂ + p₃. [prompts]."""
    sides = np.exp(found - found.max(axis=1, keepdims=True)) @ _SIDES
    odds: NDArray[np.float64] = np.log(np.maximum(sides[:, 0], 1e-30)) - np.log(np.maximum(sides[:, 1], 1e-30))
    return odds
