"""What the documents say of settings and of the dial is what the code says."""

import dataclasses
import re
from pathlib import Path

import pytest

import dispatcher_service.settings
import scorer_service.settings
from dispatcher_service.routing import NEVER_STRONG, alpha_for_share
from scorer_service import artifact
from training.cli import DEFAULT_ARTIFACT

DOCUMENTS = Path(__file__).parents[2] / "docs"
CONFIGURATION = (DOCUMENTS / "configuration.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", [scorer_service.settings, dispatcher_service.settings])
def test_every_setting_stands_in_the_document_with_its_unit_and_default(module: object) -> None:
    settings, prefix = module.Settings, module.PREFIX  # type: ignore[attr-defined]
    for field in dataclasses.fields(settings):
        default = "unset" if field.default == "" else f"`{field.default}`"
        row = f"| `{prefix}_{field.name.upper()}` | {field.metadata['unit']} | {default} |"
        assert row in CONFIGURATION, f"docs/configuration.md lacks {row}"


def test_the_dials_alphas_are_the_shipped_artefacts() -> None:
    quantiles = artifact.load(DEFAULT_ARTIFACT).manifest.score_quantiles
    rows = re.findall(
        r"^\| (\d+)% \| (\S+|above 1) \| \d+% \|$",
        (DOCUMENTS / "routing.md").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    assert len(rows) == 8
    for share, shown in rows:
        alpha = alpha_for_share(quantiles, int(share) / 100)
        assert shown == ("above 1" if alpha == NEVER_STRONG else f"{alpha:.3f}")
