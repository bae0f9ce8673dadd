"""The commands that make and clean training data: `label` and `decontaminate`."""

import argparse
import asyncio
import os
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.labels import Task, Verdict
    from training.model_calls import Tally

_STRONG_RESPONSES = ("strong_response", "gpt4_response")
_WEAK_RESPONSES = ("weak_response", "mixtral_response")


def add_commands(subparsers: Any) -> None:
    """Add the commands to an argparse subparsers object; each sets `run`, from the arguments to an exit code."""
    kinds = subparsers.add_parser("label", help="label prompts: by a judge, by known answers, or from quality scores")
    kinds = kinds.add_subparsers(required=True, metavar="KIND", dest="kind")

    parser = kinds.add_parser("judge", help="an LLM grades the weak model's answers from 1 to 5")
    parser.add_argument("--judge", required=True, metavar="MODEL", help="that grades")
    _add_calling(parser)
    parser.set_defaults(run=judge)

    parser = kinds.add_parser("golden", help="both models' answers are compared with known ones")
    parser.add_argument("--answers", required=True, choices=("choice", "number", "exact"), help="kind of column answer")
    _add_calling(parser)
    parser.set_defaults(run=golden)

    parser = kinds.add_parser("hybrid", help="Hybrid-LLM's labels from quality scores of several sampled answers")
    parser.add_argument(
        "--samples", type=Path, required=True, metavar="FILE", help="prompt, strong_scores, weak_scores"
    )
    parser.add_argument("--labels", default="transformed", choices=("deterministic", "probabilistic", "transformed"))
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .parquet or .jsonl file of pairs")
    parser.set_defaults(run=hybrid)

    parser = subparsers.add_parser("decontaminate", help="leave out training rows that evaluation prompts repeat")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="training data in any format")
    parser.add_argument("--against", type=Path, nargs="+", required=True, metavar="FILE", help="evaluation prompts")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="what is left, of the same kind as --data"
    )
    parser.add_argument("--near", type=float, default=0.95, help="least cosine of two embeddings (default: 0.95)")
    parser.add_argument("--exact-only", action="store_true", help="compare letters and digits only; encodes nothing")
    parser.set_defaults(run=decontaminate)


def _add_calling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prompts",
        type=Path,
        required=True,
        metavar="FILE",
        help="column prompt; optional strong_response, weak_response",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.jsonl", help="appended to: a run goes on there"
    )
    parser.add_argument("--base-url", required=True, help="of an OpenAI-compatible API: where the prompts are sent")
    parser.add_argument("--api-key-env", default="OPENAI_API_KEY", metavar="NAME", help="default: OPENAI_API_KEY")
    parser.add_argument("--strong-model", metavar="MODEL", help="asked where a prompt has no strong_response")
    parser.add_argument("--weak-model", metavar="MODEL", help="likewise")
    parser.add_argument(
        "--price", action="append", default=[], metavar="MODEL=IN,OUT", help="USD per million tokens; 0,0 if free"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="prompts in this run")
    parser.add_argument("--max-usd", type=Decimal, metavar="USD", help="begin no prompt once this is spent")
    parser.add_argument("--concurrency", type=int, default=8, help="prompts at a time (default: 8)")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for one call (default: 60)")
    parser.add_argument(
        "--max-tokens-parameter", default="max_completion_tokens", choices=("max_completion_tokens", "max_tokens")
    )


def judge(arguments: argparse.Namespace) -> int:
    """Run `label judge`. Returns the exit code; what goes wrong is one line on stderr."""
    from training import labels

    return _label(arguments, labels.judged(arguments.judge), [arguments.judge])


def golden(arguments: argparse.Namespace) -> int:
    """Run `label golden`. Returns the exit code; what goes wrong is one line on stderr."""
    from training import labels
    from training.judge import AnswerKind

    return _label(arguments, labels.golden(AnswerKind(arguments.answers)), [])


def _label(arguments: argparse.Namespace, verdict: "Verdict", models: list[str]) -> int:
    from training import labels
    from training.model_calls import Endpoint, LabelError, Tally
    from training.tables import DataError

    tally = Tally()
    try:
        tasks = _tasks(arguments.prompts)
        prices = _prices(arguments.price)
        if unpriced := {*models, arguments.strong_model, arguments.weak_model} - {None, *prices}:
            raise LabelError(
                f"no price for {', '.join(sorted(unpriced))}: give --price MODEL=IN,OUT, 0,0 if it is free"
            )
        spend = None if arguments.max_usd is None else int(arguments.max_usd * 10**9)
        answers = labels.Answers(
            arguments.out.with_suffix(".answers.jsonl"),
            strong_model=arguments.strong_model,
            weak_model=arguments.weak_model,
        )
        limits = labels.Limits(prompts=arguments.limit, spend=spend, concurrency=arguments.concurrency)

        async def run() -> None:
            endpoint = Endpoint(
                arguments.base_url,
                os.environ.get(arguments.api_key_env),
                prices,
                timeout=arguments.timeout,
                tally=tally,
                max_tokens_parameter=arguments.max_tokens_parameter,
            )
            async with endpoint as chat:
                with _Bar(tally) as bar:
                    await labels.run(
                        tasks, answers, verdict, chat, out=arguments.out, limits=limits, tally=tally, progress=bar.told
                    )

        asyncio.run(run())
    except KeyboardInterrupt:
        print(f"interrupted: {_summary(tally)}; the same command goes on", file=sys.stderr)
        return 130
    except (LabelError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        if tally.calls:
            print(_summary(tally), file=sys.stderr)
        return 1
    print(f"{arguments.out}: {_summary(tally)}")
    return 1 if tally.failed and not tally.labelled else 0


def _summary(tally: "Tally") -> str:
    failed = f", {tally.failed} got none ({tally.last_failure})" if tally.failed else ""
    before = f", {tally.resumed} had theirs" if tally.resumed else ""
    return f"{tally.labelled} prompts labelled{failed}{before}; {tally.calls} calls for ${tally.spent / 10**9:.6f}"


class _Bar:
    """Progress with the money spent so far, on stderr where that is a terminal."""

    def __init__(self, tally: "Tally") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self._bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bars.add_task("", total=None)
        self._tally = tally

    def __enter__(self) -> "_Bar":
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def told(self, done: int, total: int) -> None:
        """See `labels.run`."""
        spent = f"${self._tally.spent / 10**9:.4f}, {self._tally.failed} failed"
        self._bars.update(self._task, completed=done, total=total, description=spent)


def _tasks(path: Path) -> "list[Task]":
    from training import data
    from training.labels import Task

    frame = data.with_prompts(path).frame

    def column(*names: str) -> list[Any]:
        name = next((name for name in names if name in frame.columns), None)
        return [None] * len(frame) if name is None else frame[name].to_list()

    rows = zip(frame["prompt"], column(*_STRONG_RESPONSES), column(*_WEAK_RESPONSES), column("answer"), strict=True)
    return [
        Task(prompt, strong, weak, None if answer is None else str(answer)) for prompt, strong, weak, answer in rows
    ]


def _prices(given: list[str]) -> dict[str, Any]:
    from dispatcher_service.pricing import NANO_USD_PER_USD, Price
    from training.model_calls import LabelError

    prices = {}
    for argument in given:
        model, _, numbers = argument.rpartition("=")
        try:
            read, written = (int(Decimal(number) * NANO_USD_PER_USD) for number in numbers.split(","))
        except (ValueError, InvalidOperation):
            raise LabelError(f"--price {argument} is not MODEL=IN,OUT, such as gpt-4.1=2,8") from None
        prices[model] = Price(input=read, cached_input=read, cache_write=read, output=written, reasoning=written)
    return prices


def hybrid(arguments: argparse.Namespace) -> int:
    """Run `label hybrid`. Returns the exit code; what goes wrong is one line on stderr."""
    import numpy as np
    import polars as pl

    from training import data, hybrid
    from training.tables import DataError

    try:
        frame = data.with_prompts(arguments.samples).frame
        samples = {}
        for side in ("strong", "weak"):
            name = f"{side}_scores"
            if name not in frame.columns or not isinstance(frame[name].dtype, pl.List):
                raise DataError(f"{arguments.samples} has no column {name} with a list of scores per prompt")
            if frame[name].list.len().n_unique() != 1 or frame[name].list.len()[0] == 0:
                raise DataError(f"{arguments.samples}: {name} must have the same number of scores on every row")
            samples[side] = np.stack(frame[name].list.eval(pl.element().cast(pl.Float64)).to_numpy().tolist())
        found = hybrid.labels(samples["strong"], samples["weak"], hybrid.Kind(arguments.labels))
        # As qualities, so that strong − weak is what the routers learn: 1 − 2·label.
        made = pl.DataFrame(
            {"prompt": frame["prompt"], "strong_quality": 1.0 - found.labels, "weak_quality": found.labels}
        )
        match arguments.out.suffix.lower():
            case ".parquet":
                made.write_parquet(arguments.out)
            case ".jsonl":
                made.write_ndjson(arguments.out)
            case suffix:
                raise DataError(f"--out must be a .parquet or .jsonl file, not {suffix or 'one without a suffix'}")
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{arguments.out}: {len(made):,} {arguments.labels} labels, t = {found.t:g}, "
        f"mean {found.labels.mean():.3f}, mean pairwise difference {hybrid.mean_pairwise_difference(found.labels):.3f}"
    )
    return 0


def decontaminate(arguments: argparse.Namespace) -> int:
    """Run `decontaminate`. Returns the exit code; what goes wrong is one line on stderr."""
    from training import data, decontaminate, minilm, tables
    from training.encoder import PromptEncoder
    from training.evaluate_cli import progress_bars
    from training.tables import LINE, DataError

    try:
        table = data.with_prompts(arguments.data)
        evaluation = [prompt for path in arguments.against for prompt in data.read_prompts(path)]
        with progress_bars() as progress:
            encode = None
            if not arguments.exact_only:
                encode = PromptEncoder(progress=lambda done, total: progress("encoding", done, total)).encode
            found = decontaminate.find(table.frame["prompt"].to_list(), evaluation, encode, near=arguments.near)
        lines = table.frame[LINE].to_list()
        dropped = {lines[match.row] for match in found}
        tables.write_rows(arguments.data, [line for line in lines if line not in dropped], arguments.out)
    except (DataError, minilm.EncoderMissingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    exact = sum(match.cosine is None for match in found)
    for match in found[:20]:
        how = "letter for letter" if match.cosine is None else f"cosine {match.cosine:.3f}"
        print(f"  {table.place} {lines[match.row]}: evaluation prompt {match.evaluation + 1}, {how}")
    unreadable = f", {len(table.bad)} unreadable" if table.bad else ""
    print(
        f"{arguments.out}: {table.rows - len(found) - len(table.bad):,} of {table.rows:,} rows; left out {exact} exact "
        f"and {len(found) - exact} near matches{unreadable}"
    )
    return 0
