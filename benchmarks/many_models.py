"""What a decision costs among twenty models beside two: processor time of one request in this process, medians.

    python -m benchmarks.many_models [--models 20] [--rounds 15] [--calls 400]

The win probabilities are those of a real scorer of many models (`mf`, trained here on imaginary battles), kept as the
messages that it answers with, so that reading them counts and scoring does not. The models' prices are invented. A
request is paced, and is measured twice: the decision with what a caller is told of it, and all of it, with a ledger in
memory, an upstream that answers at once, and its decision record. Two and many take turns, block by block; shown are
the medians of the blocks, and the median of their ratios pair by pair.
"""

import argparse
import asyncio
import string
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median

from benchmarks import prompts
from dispatcher_service import rendering, scorer_client
from dispatcher_service.catalogue import Catalogue
from dispatcher_service.chat import Chat, Message, Request, Role, Text
from dispatcher_service.dispatch import Dispatcher
from dispatcher_service.outcome import Outcome, Prediction
from dispatcher_service.records import messages
from dispatcher_service.routing import ModelPair
from dispatcher_service.tenants import load_catalogue
from pointsman.scorer.v1 import scorer_pb2
from scorer_service.preprocess import Role as ScoredRole
from scorer_service.preprocess import Turn
from scorer_service.scorer import open_scorer
from tests import battles
from tests.fakes import FakeUpstream
from tests.unit.test_dispatch import Bench

PROMPTS = (prompts.TYPICAL, "hi", "Prove that 12 owls cannot all be different.", "def f(x): return x + 1  # f(f(2))?")
_REACH = 1.5


class Replies:
    """Implements `ports.Scorer` with a scorer's messages, each read anew."""

    def __init__(self, directory: Path, pair: ModelPair) -> None:
        """Ask the artefact in `directory` about every prompt."""
        scorer = open_scorer(directory, threads=1)
        self._quantiles = tuple(scorer.manifest.score_quantiles)
        self._replies: dict[tuple[str, bool], bytes] = {}
        for prompt in PROMPTS:
            passage = scorer.preprocessor.passage([Turn(ScoredRole.USER, prompt)])
            scores = scorer.score([passage], [(pair.strong, pair.weak)]).scores
            assert scores.model_win_probabilities is not None
            by_model = zip(scorer.manifest.models, scores.model_win_probabilities[0].tolist(), strict=True)
            for every_model in (False, True):
                response = scorer_pb2.ScoreResponse(
                    win_probability=float(scores.win_probability[0]),
                    scorer="many",
                    scorer_version=scorer.artifact.version,
                )
                if every_model:
                    response.model_win_probabilities.extend(
                        scorer_pb2.ModelWinProbability(model=model, win_probability=p) for model, p in by_model
                    )
                self._replies[prompt, every_model] = response.SerializeToString()

    async def score(
        self, chat: Chat, *, tenant_id: str, pair: ModelPair, every_model: bool, scorer: str, timeout: float
    ) -> Prediction:
        """See `ports.Scorer`."""
        reply = self._replies[chat.messages[-1].text, every_model]
        return scorer_client.read_prediction(scorer_pb2.ScoreResponse.FromString(reply), self._quantiles)


class Side:
    """A dispatcher whose tenant has some of the models."""

    def __init__(self, folder: Path, names: Sequence[str], replies: Replies) -> None:
        """`names` from weak to strong, which is also their order by price."""
        self.outcomes: list[Outcome] = []
        catalogue = _catalogue(folder, names)
        bench = Bench(upstream=FakeUpstream())
        bench.catalogue = catalogue
        bench.scorer = replies  # type: ignore[assignment]
        bench.outcomes = self.outcomes
        self._dispatcher: Dispatcher = bench.rebuilt()
        self._requests = [
            Request(
                tenant_id="t",
                chat=Chat(messages=(Message(Role.USER, (Text(prompt),)),), text_bytes=len(prompt.encode())),
                request_id="r",
            )
            for prompt in PROMPTS
        ]
        self._next = 0

    async def settle_in(self) -> None:
        """Enough calls that pacing has its distribution."""
        for _ in range(200):
            await self.complete()

    async def decide(self) -> None:
        """The decision, as `Route` answers with it."""
        choice = await self._dispatcher.route(self._request())
        rendering.decision(choice, None).SerializeToString()

    async def complete(self) -> None:
        """A whole request, with its record."""
        answer = await self._dispatcher.complete(self._request())
        rendering.decision(answer.choice, answer.bill).SerializeToString()
        messages.record(self.outcomes.pop(), trace_id="").SerializeToString()

    def _request(self) -> Request:
        self._next += 1
        return self._requests[self._next % len(self._requests)]


def _catalogue(folder: Path, names: Sequence[str]) -> Catalogue:
    models = "".join(
        f"[[models]]\nname = {name!r}\nmax_output_tokens = 1000\ncontext_window = 100000\n"
        f"price = {{ input = {0.1 * 1.3**place:.4f}, output = {0.4 * 1.3**place:.4f} }}\n"
        f"[[deployments]]\nname = '{name}-1'\nmodel = {name!r}\nbase_url = 'http://127.0.0.1:9'\n"
        for place, name in enumerate(names)
    )
    file = folder / f"{len(names)}.toml"
    file.write_text(f"{models}\n[tenants.t]\nmodels = {list(names)!r}\nstrong_call_share = 0.3\n", encoding="utf-8")
    return load_catalogue(file)


async def _block(work: Callable[[], Awaitable[None]], calls: int) -> float:
    """Microseconds of processor time that one call takes."""
    started = time.process_time()
    for _ in range(calls):
        await work()
    return (time.process_time() - started) / calls * 1e6


async def _measure(
    two: Callable[[], Awaitable[None]], many: Callable[[], Awaitable[None]], rounds: int, calls: int
) -> list[tuple[float, float]]:
    for side in (two, many):
        await _block(side, calls)  # warm
    return [(await _block(two, calls), await _block(many, calls)) for _ in range(rounds)]


def main(argv: list[str]) -> int:
    """Print the table; the exit code is 1 if a whole request among many costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=20, choices=range(3, len(string.ascii_lowercase) + 1))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=400)
    options = parser.parse_args(argv)
    names = tuple(f"model-{letter}" for letter in string.ascii_lowercase[: options.models])  # strong to weak
    reached = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = battles.trained(folder / "mf", models=names)
        ranked = written.manifest.models  # strongest first, as the battles went
        replies = Replies(folder / "mf", ModelPair(strong=ranked[0], weak=ranked[-1]))
        two = Side(folder, (ranked[-1], ranked[0]), replies)
        many = Side(folder, ranked[::-1], replies)
        print(f"{'processor time per request, µs':34}{'2 models':>10}{f'{len(ranked)} models':>11}{'ratio':>8}")
        for side in (two, many):
            asyncio.run(side.settle_in())
        for what, one, other in (
            ("decision", two.decide, many.decide),
            ("whole request", two.complete, many.complete),
        ):
            blocks = asyncio.run(_measure(one, other, options.rounds, options.calls))
            ratio = median(more / less for less, more in blocks)
            reached = ratio <= _REACH
            print(f"{what:34}{median(b[0] for b in blocks):10.0f}{median(b[1] for b in blocks):11.0f}{ratio:8.2f}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
