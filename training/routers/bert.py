"""`bert`: a fine-tuned encoder with three labels: the strong model wins, a tie, the weak model wins (RouteLLM, 4.3).

The paper routes on P(strong wins). Here p = p_strong + ½ p_tie, so that a tie counts one half, and p is calibrated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from scorer_service.preprocess import PreprocessSpec
from training import bert_graph, fine_tuning, torch_bert
from training.bert_graph import BertCheckpoint
from training.fine_tuning import Tensor
from training.logit_curve import LogitCurve
from training.onnx_graph import GraphBuilder

KIND = "bert"
LABELS = ("strong wins", "tie", "weak wins")

HEAD = ("classifier.weight", "classifier.bias")
"""Names of the head's tensors: [3, width] and [3]."""


@dataclass(frozen=True, slots=True)
class BertRouter:
    """A fine-tuned encoder. `checkpoint.tensors` hold the head's too."""

    checkpoint: BertCheckpoint
    max_tokens: int
    curve: LogitCurve

    kind: str = field(default=KIND, init=False)

    @property
    def preprocess(self) -> PreprocessSpec:
        return preprocess(self.checkpoint, self.max_tokens)

    @property
    def tokenizer_json(self) -> str:
        return self.checkpoint.tokenizer_json

    def logits(self, weights: Mapping[str, Tensor], input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The forward pass in torch: [batch, 3]."""
        return logits(self.checkpoint, weights, input_ids, attention_mask)

    def win_probability(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """What torch says about prompts given as token ids. [prompts]."""
        found = fine_tuning.evaluate(self.checkpoint.tensors, self.logits, rows, pad_id=self.checkpoint.pad_id)
        return self.curve(log_odds(found)).astype(np.float32)

    def onnx(self) -> onnx.ModelProto:
        """The graph that is served."""
        graph = GraphBuilder()
        ids, mask = (graph.input(name, ["batch", "tokens"]) for name in ("input_ids", "attention_mask"))
        shape, tensors = self.checkpoint.shape, self.checkpoint.tensors
        [hidden] = bert_graph.add_encoder(graph, (shape, tensors), ids, mask, [shape.layers])
        pooled = bert_graph.add_mean_pool(graph, hidden, mask)
        found = graph.op("MatMul", pooled, graph.floats(tensors[HEAD[0]].T, "head"))
        shares = graph.op("Softmax", graph.op("Add", found, graph.floats(tensors[HEAD[1]], "bias")), axis=-1)
        sides = graph.op("MatMul", shares, graph.floats(_SIDES))
        return graph.build({"win_probability": (self.curve.add_odds(graph, sides), ["batch"])}, KIND)


_SIDES = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
"""What each label gives to the strong and to the weak model."""


def preprocess(checkpoint: BertCheckpoint, max_tokens: int) -> PreprocessSpec:
    """The window, which is no longer than the encoder's."""
    return PreprocessSpec(
        max_tokens=min(max_tokens, checkpoint.shape.positions),
        truncation_side="right",
        pad_id=checkpoint.pad_id,
        add_special_tokens=True,
    )


def logits(
    checkpoint: BertCheckpoint, weights: Mapping[str, Tensor], input_ids: Tensor, attention_mask: Tensor
) -> Tensor:
    """The forward pass in torch with these weights: [batch, 3]."""
    hidden = torch_bert.encode(weights, checkpoint.shape, input_ids, attention_mask)
    return torch_bert.mean_pool(hidden, attention_mask) @ weights[HEAD[0]].T + weights[HEAD[1]]


def log_odds(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln(p / (1 − p)) of p = p_strong + ½ p_tie. [prompts]."""
    shares = np.exp(found - found.max(axis=1, keepdims=True))
    sides = shares @ _SIDES
    odds: NDArray[np.float64] = np.log(sides[:, 0]) - np.log(sides[:, 1])
    return odds
