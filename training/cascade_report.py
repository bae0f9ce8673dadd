"""The settings of a cascade for a terminal."""

from collections.abc import Sequence

import numpy as np
from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

from dispatcher_service.routing import NEVER_STRONG
from training.cascade_calibrate import Setting
from training.metrics import Interval

_NOTE = (
    "Cost of all calls as a part of all-strong's, and quality, on these prompts, which the thresholds were fitted to; "
    "95 % intervals over samples of such prompts. 'pointsman evaluate --strategies' measures on prompts kept out."
)


def table(settings: Sequence[Setting]) -> Group:
    """One row per budget; thresholds and what they accept stage by stage, the cheapest model's first."""
    made = Table(header_style="bold", box=SIMPLE, pad_edge=False)
    for column in ("budget", "thresholds", "easy α", "hard α", "accepted", "cost", "quality", "over routing"):
        made.add_column(column, justify="right", no_wrap=True)
    for setting in settings:
        plan = setting.plan
        cells = (
            f"{setting.budget:.0%}",
            "\n".join(f"{threshold:.4f}" for threshold in plan.thresholds),
            f"{plan.easy_alpha:.4f}" if plan.easy_alpha > 0.0 else "none",
            f"{plan.hard_alpha:.4f}" if plan.hard_alpha < NEVER_STRONG else "none",
            "\n".join(f"{share:.0%}" if np.isfinite(share) else "none checked" for share in setting.accepted),
            _percent(setting.cost),
            f"{setting.quality.value:.3f} [{setting.quality.low:.3f}, {setting.quality.high:.3f}]",
            f"{setting.gain.value:+.3f} [{setting.gain.low:+.3f}, {setting.gain.high:+.3f}]",
        )
        made.add_row(*map(Text, cells))
    return Group(made, Text(_NOTE, style="dim"))


def _percent(value: Interval) -> str:
    return f"{value.value:.1%} [{100 * value.low:.0f}, {100 * value.high:.0f}]"
