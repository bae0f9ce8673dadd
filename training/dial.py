"""The dial in numbers: for each share of strong calls its alpha, and what it costs beside all-strong."""

from decimal import Decimal
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from dispatcher_service.routing import NEVER_STRONG, alpha_for_share
from scorer_service import artifact

SHARES = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.0)


def show(directory: Path, *, strong_usd: Decimal, weak_usd: Decimal) -> Table:
    """One row per share.

    Args:
        directory: of the artefact whose quantiles set alpha.
        strong_usd: price of the strong model per million tokens, input and output mixed as the traffic mixes them.
        weak_usd: price of the weak model, likewise.

    Raises:
        ArtifactError: the directory holds no artefact that can be used.
    """
    quantiles = artifact.load(directory).manifest.score_quantiles
    table = Table(header_style="bold", box=SIMPLE, pad_edge=False)
    for column in ("share of strong calls", "α", "cost beside all-strong"):
        table.add_column(column, justify="right", no_wrap=True)
    for share in SHARES:
        alpha = alpha_for_share(quantiles, share)
        part = Decimal(str(share))
        cost = (part * strong_usd + (1 - part) * weak_usd) / strong_usd
        table.add_row(f"{share:.0%}", "above 1" if alpha == NEVER_STRONG else f"{alpha:.3f}", f"{cost:.0%}")
    return table
