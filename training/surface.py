"""What a prompt looks like, counted from its token ids: lengths, numbers, operators, options, openings.

The tokenizer is uncased and drops line breaks, so nothing here needs the text: the same features come out of the
ONNX graph, which sees ids only. Every token has a row of 0/1 attributes; features are counts, shares and
neighbourhoods of attributes.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from training.onnx_graph import GraphBuilder
from training.token_rows import TokenRows

_WORDS = {
    "operator": "+ - * / = < > ^ % × ÷ ± − √ ∑ ∫ ∞ ≤ ≥ ≠ ≈ → ∈ ∩ ∪ ⊂ ∂ · ° ′ ² ³ ₁ ₂ ₀ ₃",
    "code_mark": "{ } [ ] ; _ \\ ` # | ~ @ &",
    "dollar": "$",
    "blank": "_",
    "comma": ",",
    "full_stop": ".",
    "question_mark": "?",
    "quote": "\" ' “ ” ‘ ’",
    "colon": ":",
    "parenthesis": "( )",
    "option_mark": ". )",
    "option_letter": "a b c d e f g h i j",
    "how": "how",
    "wh_word": "what which who whom whose when where why how",
    "negation": "not no never none without except cannot neither nor least false incorrect unlikely isn don",
    "quantity": "many much total each per every twice half percent more less fewer times sum average remaining left "
    "altogether double triple third quarter dozen cost price pay spend",
    "unit": "kg cm mm km ml mol meters meter feet inches miles mile hours hour minutes minute seconds days day weeks "
    "week years dollars cents pounds liters degrees volts joules watts newton",
    "story_word": "he she his her him they their them",
    "chat_word": "i me my you your we our us please can could would want need help",
    "request": "write create explain describe give generate list summarize translate implement make tell show provide "
    "design suggest compare rewrite act imagine convert develop",
    "task": "find calculate solve determine prove compute evaluate simplify consider suppose assume let",
    "code_word": "function def return int string python code class import print array java javascript sql html css "
    "algorithm program script assert input output loop variable api bash linux",
    "maths_word": "equation integral matrix prime integer integers polynomial vector probability angle triangle circle "
    "radius derivative theorem frac sqrt sum graph set field ring group degree velocity energy",
    "judgement": "true correct both only all above following best most likely statement statements",
    "stop_word": "the a an of to in and is are was were for on with that this it as by at from be or has have had its",
}
"""Attributes of listed tokens."""

_PATTERNS = {
    "piece": r"##.+",
    "number": r"\d+",
    "long_number": r"\d{3,}",
    "non_ascii": r"[^\x00-\x7f]+",
    "letter": r"[a-z]",
    "long_word": r"[a-z]{8,}",
}
"""Attributes of tokens that match an expression whole."""

ATTRIBUTES = (*_WORDS, *_PATTERNS, "rare")

PAIRS = (
    ("option_letter", "option_mark"),
    ("how", "quantity"),
    ("dollar", "number"),
    ("number", "operator"),
    ("operator", "letter"),
    ("letter", "operator"),
    ("blank", "blank"),
    ("number", "unit"),
    ("full_stop", "number"),
)
"""Attributes of two neighbouring tokens, counted together. The first pair opens an answer option."""

_OPENINGS = (
    "wh_word",
    "how",
    "request",
    "task",
    "stop_word",
    "story_word",
    "chat_word",
    "long_word",
    "number",
    "piece",
)
_LAST = ("question_mark", "colon", "blank", "full_stop", "code_mark", "number")
_SPLIT = ("number", "operator", "negation", "stop_word", "long_word", "piece", "rare")
"""Attributes whose share is also taken inside the options alone."""

_RARE_FROM = 12_000
"""WordPiece ids run roughly by frequency: from this id on a word is rare."""


def attribute_table(vocabulary: Sequence[str]) -> NDArray[np.int8]:
    """One row of 0/1 attributes per token: [vocabulary, attributes]. Control tokens (`[...]`) have none."""
    table = np.zeros((len(vocabulary), len(ATTRIBUTES)), np.int8)
    tests: list[Callable[[str], object]] = [set(words.split()).__contains__ for words in _WORDS.values()]
    tests += [re.compile(pattern).fullmatch for pattern in _PATTERNS.values()]
    for token_id, token in enumerate(vocabulary):
        if not re.fullmatch(r"\[\w+\]", token):
            table[token_id, : len(tests)] = [bool(test(token)) for test in tests]
    table[_RARE_FROM:, -1] = [bool(re.fullmatch("[a-z]+", token)) for token in vocabulary[_RARE_FROM:]]
    return table


def features(table: NDArray[np.int8], rows: TokenRows) -> NDArray[np.float32]:
    """Surface features of many prompts, in numpy. [prompts, features].

    Each row of ids stands between [CLS] and [SEP], so that even a text of nothing but control characters has tokens.
    """
    attributes = table[rows.ids].astype(np.float32)
    following = np.roll(attributes, -1, axis=0)
    following[rows.ends - 1] = 0.0
    left, right = _pair_columns()
    pairs = attributes[:, left] * following[:, right]
    # 1 from a prompt's first option mark on.
    marks = np.cumsum(pairs[:, 0])
    before = np.concatenate([[0.0], marks])[rows.starts]
    in_options = (marks - rows.spread(before) > 0).astype(np.float32)

    tokens = rows.lengths.astype(np.float32)[:, None]
    counts = rows.sum(np.concatenate([attributes, pairs], axis=1))
    option_tokens = rows.sum(in_options[:, None])
    options = counts[:, [len(ATTRIBUTES)]]
    split = rows.sum(attributes[:, _columns(_SPLIT)] * in_options[:, None])
    blocks = [
        np.log1p(tokens),
        np.log1p(tokens - option_tokens),
        np.log1p(option_tokens),
        options,
        np.log1p(option_tokens / (options + 1.0)),
        np.log1p(counts),
        counts / tokens,
        attributes[rows.starts + 1][:, _columns(_OPENINGS)],
        attributes[rows.ends - 2][:, _columns(_LAST)],
        split / (option_tokens + 1.0),
    ]
    return np.concatenate(blocks, axis=1).astype(np.float32)


def add_features(graph: GraphBuilder, table: NDArray[np.int8], input_ids: str, mask: str) -> str:
    """The same features as graph nodes.

    Args:
        input_ids: int64 [batch, tokens], each row between [CLS] and [SEP], then padding.
        mask: float32 [batch, tokens, 1], 1 where a token stands.

    Returns:
        float32 [batch, features].
    """
    one, along, across = graph.floats(1.0), graph.ints([1]), graph.ints([2])
    raw = graph.cast(graph.op("Gather", graph.constant(table, np.int8, "attributes"), input_ids))
    attributes = graph.op("Mul", raw, mask)
    following = _shift_left(graph, attributes)
    left, right = _pair_columns()
    pairs = graph.op(
        "Mul",
        graph.op("Gather", attributes, graph.ints(left), axis=2),
        graph.op("Gather", following, graph.ints(right), axis=2),
    )
    marks = graph.op("Slice", pairs, graph.ints([0]), graph.ints([1]), across)
    begun = graph.op("Greater", graph.op("CumSum", marks, graph.ints(1)), graph.floats(0.0))
    in_options = graph.op("Mul", graph.cast(begun), mask)

    def total(value: str) -> str:
        return graph.op("ReduceSum", value, along, keepdims=0)

    def log1p(value: str) -> str:
        return graph.op("Log", graph.op("Add", value, one))

    tokens = total(mask)
    counts = total(graph.op("Concat", attributes, pairs, axis=2))
    option_tokens = total(in_options)
    options = graph.op("Gather", counts, graph.ints([len(ATTRIBUTES)]), axis=1)
    split = total(graph.op("Mul", graph.op("Gather", attributes, graph.ints(_columns(_SPLIT)), axis=2), in_options))
    # One token stands last before [SEP]: it has a follower, and its follower has none.
    follower = _shift_left(graph, mask)
    is_final = graph.op("Sub", follower, _shift_left(graph, follower))
    final = total(graph.op("Mul", attributes, is_final))
    first = graph.op("Gather", attributes, graph.ints(1), axis=1)
    return graph.op(
        "Concat",
        log1p(tokens),
        log1p(graph.op("Sub", tokens, option_tokens)),
        log1p(option_tokens),
        options,
        log1p(graph.op("Div", option_tokens, graph.op("Add", options, one))),
        log1p(counts),
        graph.op("Div", counts, tokens),
        graph.op("Gather", first, graph.ints(_columns(_OPENINGS)), axis=1),
        graph.op("Gather", final, graph.ints(_columns(_LAST)), axis=1),
        graph.op("Div", split, graph.op("Add", option_tokens, one)),
        axis=1,
    )


def _shift_left(graph: GraphBuilder, value: str) -> str:
    """Give each token its follower's value, the last one zeros: [batch, tokens, width] -> the same shape."""
    rest = graph.op("Slice", value, graph.ints([1]), graph.ints([np.iinfo(np.int64).max]), graph.ints([1]))
    return graph.op("Pad", rest, graph.ints([0, 0, 0, 0, 1, 0]))


def _columns(names: Sequence[str]) -> list[int]:
    return [ATTRIBUTES.index(name) for name in names]


def _pair_columns() -> tuple[list[int], list[int]]:
    return _columns([left for left, _ in PAIRS]), _columns([right for _, right in PAIRS])
