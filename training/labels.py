"""Labels from models behind an OpenAI-compatible endpoint: answers of both models, and a judge's or a key's verdict.

A run may stop at any point and go on later: each labelled prompt is a line of the output at once, and is not paid for
again. Every call has a timeout; a prompt whose calls fail is left for the next run.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
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


Labeller = Callable[[Task, Chat], Any]
"""An async function from a task to the columns of its label; raises `Unfinished` for none."""


def judged(*, judge_model: str, strong_model: str | None, weak_model: str | None) -> Labeller:
    """Grade the weak model's answer against the strong one's: the `grades` format.

    Args:
        judge_model: that grades.
        strong_model: asked where a task has no strong answer.
        weak_model: likewise.
    """

    async def label(task: Task, chat: Chat) -> dict[str, Any]:
        strong, weak, spent = await _answers(task, chat, strong_model, weak_model)
        text, more = await chat(judge_model, judge.grading_messages(task.prompt, strong, weak))
        grade = judge.read_grade(text)
        if grade is None:
            raise Unfinished(f"{judge_model} gave no grade: {text[-80:]!r}")
        found = {"weak_grade": grade, "judge": judge_model, "cost_nano_usd": spent + more}
        return {"prompt": task.prompt, **found, "strong_response": strong, "weak_response": weak}

    return label


def golden(*, answers: AnswerKind, strong_model: str | None, weak_model: str | None) -> Labeller:
    """Compare both models' answers with the known one: the `pair` format.

    An answer in which nothing can be compared is no label, rather than a wrong one.
    """

    async def label(task: Task, chat: Chat) -> dict[str, Any]:
        if task.answer is None:
            raise LabelError("golden labels need a column answer, with the known answer of each prompt")
        strong, weak, spent = await _answers(task, chat, strong_model, weak_model)
        verdicts = {}
        for side, response in (("strong", strong), ("weak", weak)):
            verdict = judge.is_correct(response, task.answer, answers)
            if verdict is None:
                raise Unfinished(f"no {answers.value} in the {side} answer: {response[-80:]!r}")
            verdicts[f"{side}_correct"] = int(verdict)
        known = {"answer": task.answer, "cost_nano_usd": spent}
        return {"prompt": task.prompt, **verdicts, **known, "strong_response": strong, "weak_response": weak}

    return label


async def _answers(
    task: Task, chat: Chat, strong_model: str | None, weak_model: str | None
) -> tuple[str, str, NanoUsd]:
    responses, spent = [], 0
    for known, model, side in (
        (task.strong_response, strong_model, "strong"),
        (task.weak_response, weak_model, "weak"),
    ):
        if known is not None:
            responses.append(known)
            continue
        if model is None:
            raise LabelError(f"a prompt has no {side}_response: add that column, or name a --{side}-model to ask")
        text, cost_ = await chat(model, [{"role": "user", "content": task.prompt}])
        responses.append(text)
        spent += cost_
    return responses[0], responses[1], spent


async def run(
    tasks: Sequence[Task],
    labeller: Labeller,
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
        labeller: `judged` or `golden`.
        chat: an open `Endpoint`.
        out: JSON lines, made if it is not there.
        limits: of this run.
        tally: is kept up to date.
        progress: told (prompts done, of how many in this run).

    Raises:
        LabelError: the run cannot go on.
        DataError: `out` holds what is no label.
    """
    done = _done(out)
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
                label = await labeller(task, chat)
            except Unfinished as problem:
                tally.failed, tally.last_failure = tally.failed + 1, str(problem)
                failures_in_a_row += 1
                if failures_in_a_row >= _MOST_FAILURES:
                    raise LabelError(
                        f"{failures_in_a_row} prompts in a row got no label, the last: {problem}"
                    ) from problem
            else:
                failures_in_a_row = 0
                file.write(json.dumps(label, ensure_ascii=False) + "\n")
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


def _done(out: Path) -> set[str]:
    """Prompts that the file has labels for. A last line that was cut short is taken off."""
    if not out.exists():
        return set()
    content = out.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        prompts = {json.loads(line)["prompt"] for line in whole.splitlines()}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{out} holds lines that are no labels: give another file to --out") from error
    if len(whole) < len(content):
        out.write_bytes(whole)
    return prompts
