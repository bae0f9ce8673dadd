"""Conversation to tensors: the only code that does this, for training, evaluation and serving alike.

Version 1 reads the last user turn whose text is not blank. Text is text: `[CLS]` written by a user is tokenised as
those five characters, never as the special token, so that nobody can forge the model's framing.

Version 2 reads the same and puts it between a prefix and a suffix of the artefact's own, such as an instruction and the
marks of a chat; in these, special tokens are what they say.

Version 3 is for scorers of answers. It reads the prompt as version 1 does, and apart from it one answer or two, each
framed as a prompt is and with the marks of `marks.marks`. Of an answer that is too long the beginning is dropped: its
end says what it comes to. Marks are counted over all characters that are looked at, before the token window.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from scorer_service.marks import NAMES, Marks, marks

VERSIONS: Final = (1, 2, 3)
"""What this module knows."""

ANSWER_VERSION: Final = 3
"""Reads answers; the other versions read conversations alone."""

_PREFIX_VERSION: Final = 2

CHARACTERS_PER_TOKEN: Final = 32
"""No more than `max_tokens` times this many characters are looked at, counted from the end that truncation keeps.

Real text has 1 to 8 characters per token. Without this bound one prompt of 1 MiB costs the tokenizer half a second,
of which a window of 512 tokens would use a hundredth.
"""

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Role(enum.Enum):
    """Who wrote a turn. The values are those of `golden.jsonl` and of OpenAI's chat format."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessSpec:
    """What an artefact's manifest says under `preprocess`.

    Attributes:
        max_tokens: tokens of one input, special tokens, prefix and suffix included; in version 3, of the prompt.
        truncation_side: the side that is dropped from a text that is too long; in version 3, from the prompt.
        pad_id: fills `input_ids` where `attention_mask` is 0.
        add_special_tokens: frame the text as the tokenizer's post-processor says.
        version: of the rules in this module.
        prefix, suffix: texts before and after what is read, within the frame; empty unless it is version 2.
        answer_tokens: tokens of one answer, special tokens included, in version 3; 0 in the others.
    """

    max_tokens: int
    truncation_side: Literal["left", "right"]
    pad_id: int
    add_special_tokens: bool
    version: int = 1
    prefix: str = ""
    suffix: str = ""
    answer_tokens: int = 0

    def problem(self) -> str:
        """What makes this version of the code refuse the spec, or nothing."""
        if self.version not in VERSIONS:
            known = ", ".join(map(str, VERSIONS))
            return f"unknown preprocess version {self.version}, and this scorer knows versions {known}"
        if self.version != _PREFIX_VERSION and (self.prefix or self.suffix):
            return f"preprocess version {self.version} has no prefix and suffix"
        if (self.version == ANSWER_VERSION) != (self.answer_tokens > 0):
            return f"preprocess version {self.version} with answer_tokens {self.answer_tokens}: it goes with version 3"
        return ""


class NoUserText(ValueError):
    """The conversation has no user turn with text that is not blank."""


@dataclass(frozen=True, slots=True)
class Passage:
    """The part of a conversation that is read. `cut` says that it was longer than the character bound."""

    text: str
    cut: bool


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one passage, special tokens included; `truncated` says that some of its text was dropped."""

    input_ids: tuple[int, ...]
    truncated: bool


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a Hugging Face `tokenizer.json`. Any error of the library passes through."""
    return Tokenizer.from_file(str(path))


class Preprocessor:
    """Applies one artefact's spec. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer, spec: PreprocessSpec) -> None:
        """Takes `tokenizer` over: its own truncation and padding are switched off.

        Raises:
            ValueError: the spec's version is not this module's, or its window has no room for text.
        """
        if problem := spec.problem():
            raise ValueError(problem)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        before, after = _frame(tokenizer) if spec.add_special_tokens else ((), ())
        # Here alone special tokens are read as such: the template is the artefact's, the text is anybody's.
        tokenizer.encode_special_tokens = False
        prefix, suffix = (tokenizer.encode(part, add_special_tokens=False).ids for part in (spec.prefix, spec.suffix))
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._keep_end = spec.truncation_side == "left"
        self._prefix, self._suffix = (*before, *prefix), (*suffix, *after)
        self._room = spec.max_tokens - len(self._prefix) - len(self._suffix)
        if self._room < 1:
            raise ValueError(f"max_tokens {spec.max_tokens} leaves no room for text")
        self._max_characters = spec.max_tokens * CHARACTERS_PER_TOKEN

    def passage(self, turns: Sequence[Turn]) -> Passage:
        """Choose what is read.

        Raises:
            NoUserText: no user turn has text that is not blank.
        """
        for turn in reversed(turns):
            if turn.role is Role.USER and turn.text.strip():
                return self.bounded(turn.text)
        raise NoUserText

    def bounded(self, text: str) -> Passage:
        """The part of a text that is looked at."""
        bound = self._max_characters
        kept = text[-bound:] if self._keep_end else text[:bound]
        return Passage(kept, cut=len(kept) < len(text))

    def encode(self, turns: Sequence[Turn]) -> Encoded:
        """`passage`, then `encode_passages`, for one conversation."""
        return self.encode_passages([self.passage(turns)])[0]

    def encode_passages(self, passages: Sequence[Passage]) -> list[Encoded]:
        """Tokenise and truncate, in order. The tokenizer releases the GIL."""
        texts = [passage.text for passage in passages]
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [self._fit(encoding.ids, passage.cut) for encoding, passage in zip(encodings, passages, strict=True)]

    def _fit(self, ids: list[int], cut: bool) -> Encoded:
        dropped = len(ids) > self._room
        if dropped:
            ids = ids[-self._room :] if self._keep_end else ids[: self._room]
        return Encoded((*self._prefix, *ids, *self._suffix), truncated=dropped or cut)


@dataclass(frozen=True, slots=True)
class AnswerPassages:
    """What is read of a conversation and of answers to it."""

    prompt: Passage
    answers: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class EncodedAnswer:
    """One answer: its tokens and its marks."""

    encoded: Encoded
    marks: Marks


@dataclass(frozen=True, slots=True)
class EncodedAnswers:
    """A prompt with answers to it, in the order given."""

    prompt: Encoded
    answers: tuple[EncodedAnswer, ...]


class AnswerPreprocessor:
    """Applies a spec of version 3. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer, spec: PreprocessSpec) -> None:
        """As for `Preprocessor`.

        Raises:
            ValueError: the spec is of another version, or a window has no room for text.
        """
        if problem := spec.problem():
            raise ValueError(problem)
        if spec.version != ANSWER_VERSION:
            raise ValueError(f"preprocess version {spec.version} reads no answers")
        plain = replace(spec, version=1, answer_tokens=0)
        self._prompts = Preprocessor(tokenizer, plain)
        self._answers = Preprocessor(tokenizer, replace(plain, max_tokens=spec.answer_tokens, truncation_side="left"))

    def passages(self, turns: Sequence[Turn], answers: Sequence[str]) -> AnswerPassages:
        """Choose what is read.

        Raises:
            NoUserText: no user turn has text that is not blank.
        """
        return AnswerPassages(self._prompts.passage(turns), tuple(map(self._answers.bounded, answers)))

    def encode(self, batch: Sequence[AnswerPassages]) -> list[EncodedAnswers]:
        """Tokenise, truncate and mark, in order."""
        prompts = self._prompts.encode_passages([row.prompt for row in batch])
        answers = iter(self._answers.encode_passages([answer for row in batch for answer in row.answers]))
        return [
            EncodedAnswers(
                prompt,
                tuple(EncodedAnswer(next(answers), marks(row.prompt.text, answer.text)) for answer in row.answers),
            )
            for row, prompt in zip(batch, prompts, strict=True)
        ]


def stack_marks(batch: Sequence[Marks]) -> tuple[Floats, Ids]:
    """Marks as tensors: float32 [batch, `len(marks.NAMES)`], and the conclusions, int64 [batch]."""
    values = np.array([row.values for row in batch], dtype=np.float32).reshape(len(batch), len(NAMES))
    return values, np.array([row.conclusion for row in batch], dtype=np.int64)


def pad(batch: Sequence[Encoded], pad_id: int) -> tuple[Ids, Ids]:
    """Stack a batch, padding on the right.

    Returns:
        `input_ids` and `attention_mask`, both int64 [batch, longest]; the mask is 1 where there is a token.
    """
    lengths = np.fromiter((len(encoded.input_ids) for encoded in batch), dtype=np.int64, count=len(batch))
    # A graph may divide by or reduce over the token axis, so that it is never empty.
    mask = np.arange(max(1, int(lengths.max()))) < lengths[:, None]
    input_ids = np.full(mask.shape, pad_id, dtype=np.int64)
    # Row-major on both sides: the mask's true cells are the tokens of all rows in order.
    input_ids[mask] = np.concatenate([np.asarray(encoded.input_ids, dtype=np.int64) for encoded in batch])
    return input_ids, mask.astype(np.int64)


def _frame(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that the post-processor puts before and after a text."""
    framed = tokenizer.encode("x", add_special_tokens=True)
    special = framed.special_tokens_mask
    first = special.index(0)
    end = len(special) - special[::-1].index(0)
    return tuple(framed.ids[:first]), tuple(framed.ids[end:])
