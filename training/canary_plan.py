"""A canary plan: what to write into the dispatcher's configuration, step by step, and when to take it back.

The plan is TOML that people read and a script may follow. Each step's `config` goes into the configuration file, which
is taken over within two seconds; each abort rule is PromQL that is empty while all is well.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from training.from_log import Trained
from training.metrics import Interval

STEPS = ((0.05, 24), (0.25, 24), (0.5, 48))
"""Share of the tenants, and hours to watch it. A weight that grows only adds tenants."""

FEWEST_OPINIONS = 200
"""Ratings of the canary in a day below which their mean says nothing."""

LARGEST_DROP = 0.05
"""By which the mean opinion may fall below the main scorer's."""


@dataclass(frozen=True, slots=True)
class Abort:
    """A reason to take the canary back: `expr` is PromQL with a result if it is there."""

    why: str
    expr: str


def aborts(canary: str, main: str = "main") -> Sequence[Abort]:
    """The rules for a canary of this name, as metric label `scorer`."""
    seconds, feedback = "pointsman_dispatcher_scorer_seconds", "pointsman_dispatcher_feedback"

    def calls(labels: str) -> str:
        return f'sum(rate({seconds}_count{{scorer="{canary}"{labels}}}[5m]))'

    def slowest(scorer: str) -> str:
        return f'histogram_quantile(0.99, sum by (le) (rate({seconds}_bucket{{scorer="{scorer}",result="OK"}}[5m])))'

    def opinions(scorer: str, what: str) -> str:
        return f'sum by (kind) (increase({feedback}{what}_total{{scorer="{scorer}"}}[1d]))'

    def mean(scorer: str) -> str:
        return f"{opinions(scorer, '_opinion')} / {opinions(scorer, '')}"

    result = ',result!="OK"'
    return (
        Abort("one prediction in a hundred fails", f"{calls(result)} / {calls('')} > 0.01"),
        Abort(
            "it is left alone after failures",
            f'max(pointsman_dispatcher_scorer_breaker_state{{scorer="{canary}"}}) > 0',
        ),
        Abort("its slowest predictions take twice the main scorer's", f"{slowest(canary)} > 2 * {slowest(main)}"),
        Abort(
            f"opinions on its answers are worse by {LARGEST_DROP:g}",
            f"({mean(canary)}) < ({mean(main)}) - {LARGEST_DROP:g}\nand {opinions(canary, '')} >= {FEWEST_OPINIONS}",
        ),
    )


def name(trained: Trained) -> str:
    """The canary's name: a metric label, and what its tenants are drawn by."""
    return f"log-{trained.artifact.version[:8]}"


def write(trained: Trained, address: str) -> str:
    """The plan's text.

    Args:
        trained: what is to be tried.
        address: of the scorer that serves it; `embedded` runs it in the dispatcher.
    """
    canary, compared = name(trained), trained.compared
    lines = [
        f"# Canary plan for scorer {trained.artifact.version}, trained on a log, beside {trained.running}, which runs.",
        f"# On {compared.labels:,} later opinions (worth {compared.effective:,.0f} of equal weight), 95 % intervals:",
        f"#   APGR {_shown(compared.apgr_running)} running, {_shown(compared.apgr_new)} new",
        f"#   new less running: APGR {_shown(compared.apgr_gain, '+')}, error² {_shown(compared.brier_gain, '+')}",
        f"# {_advice(compared.apgr_gain)}",
        "# Serve it, write a step's config into the dispatcher's file, watch for its hours, and go on to the next. If",
        "# an abort rule gives a result, set the weight to 0. After the last step make it the main scorer's artefact.",
        "",
        f'canary = "{canary}"',
    ]
    where = f'address = "{address}"'
    if address == "embedded":
        where += f"\nartifact = {json.dumps(str(trained.artifact.directory.resolve()))}"
    for weight, hours in STEPS:
        config = f'[[scorer.canaries]]\nname = "{canary}"\n{where}\nweight = {weight:g}\n'
        lines += ["", "[[steps]]", f"weight = {weight:g}", f"hours = {hours}", f"config = '''\n{config}'''"]
    for rule in aborts(canary):
        lines += ["", "[[aborts]]", f'why = "{rule.why}"', f"expr = '''\n{rule.expr}\n'''"]
    return "\n".join(lines) + "\n"


def _advice(gain: Interval) -> str:
    if gain.above_zero:
        return "It ranks better than the running one, beyond chance."
    return "It is not shown to rank better than the running one: the canary may tell, more opinions would."


def _shown(value: Interval, sign: str = "") -> str:
    return f"{value.value:{sign}.3f} ({value.low:{sign}.3f} to {value.high:{sign}.3f})"
