"""The scorers of one process by name and task."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from scorer_service.artifact import Task
from scorer_service.errors import Loading, NotFound, WrongTask
from scorer_service.judging import ServedJudge
from scorer_service.serving import ServedScorer

Served = ServedScorer | ServedJudge

_KINDS: Final = {Task.SCORE_ANSWER: "answer", Task.RANK_ANSWERS: "ranker"}
"""The kind to train where a task has no scorer."""


class Scorers:
    """All scorers of the process. Empty until they are loaded."""

    def __init__(self) -> None:
        self._by_name: Mapping[str, Served] = {}
        self._defaults: Mapping[Task, str] = {}

    def open(self, scorers: Sequence[Served]) -> None:
        """From now on answer with these; of each task the first is the default."""
        self._by_name = {scorer.name: scorer for scorer in scorers}
        self._defaults = {scorer.manifest.task: scorer.name for scorer in reversed(scorers)}

    def predictor(self, name: str, *, at: str) -> ServedScorer:
        """The scorer of that name that predicts, or the default one for an empty name.

        Raises:
            Loading: none is loaded yet.
            NotFound: none has the name, or none predicts; `at` is the path of the request that gave it.
            WrongTask: the one of that name judges answers.
        """
        scorer = self._get(name, Task.PREDICT, at)
        assert isinstance(scorer, ServedScorer)
        return scorer

    def judge(self, name: str, task: Task) -> ServedJudge:
        """The scorer of that name and task, or the task's default for an empty name; errors as for `predictor`."""
        scorer = self._get(name, task, "")
        assert isinstance(scorer, ServedJudge)
        return scorer

    def __iter__(self) -> Iterator[Served]:
        """The default that predicts first, the rest by name."""
        first = self._defaults.get(Task.PREDICT)
        return iter(sorted(self._by_name.values(), key=lambda scorer: (scorer.name != first, scorer.name)))

    def is_default(self, scorer: Served) -> bool:
        """True for the scorer that answers requests of its task which name none."""
        return scorer.name == self._defaults[scorer.manifest.task]

    async def close(self) -> None:
        """Stop all workers."""
        for scorer in self:
            await scorer.close()

    def _get(self, name: str, task: Task, at: str) -> Served:
        if not self._by_name:
            raise Loading
        scorer = self._by_name.get(name or self._defaults.get(task, ""))
        if scorer is None and not name:
            kind = _KINDS.get(task)
            how = f", for example one of kind {kind!r} by 'pointsman train --router {kind}'," if kind else ""
            raise NotFound(f"{at}scorer", f"no scorer is here to {task.value}: add one{how} to SCORER_ARTIFACTS")
        if scorer is None:
            raise NotFound(f"{at}scorer", f"no scorer has this name; there is {', '.join(sorted(self._by_name))}")
        if scorer.manifest.task is not task:
            fitting = sorted(known for known, scorer in self._by_name.items() if scorer.manifest.task is task)
            mend = f"name one of {', '.join(fitting)}" if fitting else "and no other is here"
            raise WrongTask(
                f"{at}scorer", f"{scorer.name!r} is to {scorer.manifest.task.value}, not to {task.value}; {mend}"
            )
        return scorer
