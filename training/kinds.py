"""The kinds of router by name. This module imports nothing, so that `pointsman --help` needs no numpy."""

from collections.abc import Mapping

KINDS: Mapping[str, str] = {
    "kernel": "difficulty heads and MiniLM's middle layers under a kernel; teaches static",
    "static": "word vectors and surface features; the shipped default",
    "mf": "matrix factorisation over all models (RouteLLM)",
    "sw": "a Bradley-Terry fit per prompt over battles of similar prompts (RouteLLM)",
    "bert": "a fine-tuned encoder with three labels (RouteLLM); needs the train group",
    "causal_lm": "a fine-tuned decoder that grades the weak answer (RouteLLM); needs the train group",
    "answer": "says how likely an answer is acceptable, for cascades (FrugalGPT); learns from graded answers",
    "ranker": "says which of two answers is better, for ensembles (LLM-Blender); learns from graded answers",
}
"""Kind -> one line of help. `pointsman train --router KIND` runs `training.fit_KIND`, see `train`."""
