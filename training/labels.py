"""Labels from models behind an OpenAI-compatible endpoint: answers of both models, and a judge's or a key's verdict.

A run may stop at any point and go on later: each labelled prompt is a line of the output at once, and is not paid for
again; nor are answers that came before a verdict failed. Every call has a timeout; a prompt without a label is left for
the next run.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from dispatcher_service.pricing import NanoUsd
from training import judge
from training.judge import AnswerKind
from training.model_calls import Chat, LabelError, Tally, Unfinished
from training.tables import DataError

_MOST_FAILURES = 10
"""In a row: then something is wrong that the next prompt would meet too."""


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt to label.

    Attributes:
        prompt: the text.
        strong_response, weak_response: where they are known already.
        answer: the known answer, where there is one.
    """

    prompt: str
    strong_response: str | None = None
    weak_response: str | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a run may do.

    Attributes:
        prompts: to label in this run; `None` is all.
        spend: no new prompt is begun once so much is spent; `None` is no limit.
        concurrency: prompts at a time.
    """

    prompts: int | None = None
    spend: NanoUsd | None = None
    concurrency: int = 8


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt with both models' answers, and what these cost."""

    task: Task
    strong: str
    weak: str
    cost: NanoUsd


Verdict = Callable[[Answered, Chat], Awaitable[dict[str, Any]]]
"""From an answered prompt to the columns of its label; raises `Unfinished` for none."""


def judged(judge_model: str) -> Verdict:
    """A judge grades the weak answer against the strong one: the `grades` format."""

    async def verdict(answered: Answered, chat: Chat) -> dict[str, Any]:
        question = judge.grading_messages(answered.task.prompt, answered.strong, answered.weak)
        text, cost = await chat(judge_model, question)
        grade = judge.read_grade(text)
        if grade is None:
            raise Unfinished(f"{judge_model} gave no grade: {text[-80:]!r}")
        return {"weak_grade": grade, "judge": judge_model, "cost_nano_usd": answered.cost + cost}

    return verdict


def golden(kind: AnswerKind) -> Verdict:
    """Both answers are compared with the known one: the `pair` format.

    An answer in which nothing can be compared is no label, rather than a wrong one.
    """

    async def verdict(answered: Answered, _: Chat) -> dict[str, Any]:
        known = answered.task.answer
        if known is None:
            raise LabelError("golden labels need a column answer, with the known answer of each prompt")
        found: dict[str, Any] = {}
        for side, response in (("strong", answered.strong), ("weak", answered.weak)):
            correct = judge.is_correct(response, known, kind)
            if correct is None:
                raise Unfinished(f"no {kind.value} in the {side} answer: {response[-80:]!r}")
            found[f"{side}_correct"] = int(correct)
        return {**found, "answer": known, "cost_nano_usd": answered.cost}

    return verdict


class Answers:
    """Gets both models' answers, each asked and paid for once: they are kept in a file beside the labels."""

    def __init__(self, kept: Path, *, strong_model: str | None, weak_model: str | None) -> None:
        """
        Args:
            kept: JSON lines, made if it is not there.
            strong_model: asked where a task has no strong answer; `None` asks nobody.
            weak_model: likewise.

        Raises:
            DataError: `kept` holds something else.
        """
        self._models = {"strong": strong_model, "weak": weak_model}
        self._file = kept
        self._known = {
            (row["prompt"], row["model"]): (row["response"], row["cost_nano_usd"])
            for row in _whole_lines(kept, {"prompt", "model", "response", "cost_nano_usd"})
        }

    async def of(self, task: Task, chat: Chat) -> Answered:
        """The answers to one prompt.

        Raises:
            LabelError: one is missing and there is no model to ask.
            Unfinished: a model does not answer.
        """
        strong, strong_cost = await self._answer(task.prompt, "strong", task.strong_response, chat)
        weak, weak_cost = await self._answer(task.prompt, "weak", task.weak_response, chat)
        return Answered(task, strong, weak, strong_cost + weak_cost)

    async def _answer(self, prompt: str, side: str, given: str | None, chat: Chat) -> tuple[str, NanoUsd]:
        if given is not None:
            return given, 0
        model = self._models[side]
        if model is None:
            raise LabelError(f"a prompt has no {side}_response: add that column, or name a --{side}-model to ask")
        if (prompt, model) not in self._known:
            response, cost = await chat(model, [{"role": "user", "content": prompt}])
            self._known[prompt, model] = response, cost
            row = {"prompt": prompt, "model": model, "response": response, "cost_nano_usd": cost}
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        return self._known[prompt, model]


async def run(
    tasks: Sequence[Task],
    answers: Answers,
    verdict: Verdict,
    chat: Chat,
    *,
    out: Path,
    limits: Limits,
    tally: Tally,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Label what `out` does not have yet, and append it there.

    Args:
        tasks: what to label; of equal prompts, the first.
        answers: gets what is to be judged.
        verdict: `judged` or `golden`.
        chat: an open `Endpoint`.
        out: JSON lines, made if it is not there.
        limits: of this run.
        tally: is kept up to date.
        progress: told (prompts done, of how many in this run).

    Raises:
        LabelError: the run cannot go on.
        DataError: `out` holds what is no label.
    """
    done = {row["prompt"] for row in _whole_lines(out, {"prompt"})}
    unique = {task.prompt: task for task in reversed(tasks)}
    todo = [task for prompt, task in reversed(unique.items()) if prompt not in done]
    tally.resumed = len(unique) - len(todo)
    todo = todo[: limits.prompts]
    queue = iter(todo)
    failures_in_a_row = 0

    async def work(file: TextIO) -> None:
        nonlocal failures_in_a_row
        # Workers share the iterator: no await between taking a task and beginning it.
        for task in queue:
            if limits.spend is not None and tally.spent >= limits.spend:
                return
            try:
                answered = await answers.of(task, chat)
                label = await verdict(answered, chat)
            except Unfinished as problem:
                tally.failed, tally.last_failure = tally.failed + 1, str(problem)
                failures_in_a_row += 1
                if failures_in_a_row >= _MOST_FAILURES:
                    raise LabelError(
                        f"{failures_in_a_row} prompts in a row got no label, the last: {problem}"
                    ) from problem
            else:
                failures_in_a_row = 0
                responses = {"strong_response": answered.strong, "weak_response": answered.weak}
                file.write(json.dumps({"prompt": task.prompt, **label, **responses}, ensure_ascii=False) + "\n")
                file.flush()
                tally.labelled += 1
            progress(tally.labelled + tally.failed, len(todo))

    with out.open("a", encoding="utf-8") as file:
        workers = [asyncio.create_task(work(file)) for _ in range(max(1, min(limits.concurrency, len(todo))))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


def _whole_lines(path: Path, keys: set[str]) -> list[dict[str, Any]]:
    """The rows of a file that an earlier run may have left. A last line that was cut short is taken off.

    Raises:
        DataError: a row lacks one of the keys.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        rows = [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise DataError(f"{path} is not what an earlier run wrote: give another file to --out") from error
    if not all(isinstance(row, dict) and keys <= row.keys() for row in rows):
        raise DataError(f"{path} is not what an earlier run wrote: give another file to --out")
    if len(whole) < len(content):
        path.write_bytes(whole)
    return rows
