"""What the documents say of settings and of the dial is what the code says."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_origin

import pytest
from pydantic import BaseModel

import apps.local_upstream.server
import apps.openai_gateway.settings
import dispatcher_service.settings
import scorer_service.settings
from dispatcher_service import errors
from dispatcher_service.routing import NEVER_STRONG, alpha_for_share
from dispatcher_service.sections import FileSection, section_in
from scorer_service import artifact
from training.cli import DEFAULT_ARTIFACT

DOCUMENTS = Path(__file__).parents[2] / "docs"
CONFIGURATION = (DOCUMENTS / "configuration.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "module",
    [scorer_service.settings, dispatcher_service.settings, apps.openai_gateway.settings, apps.local_upstream.server],
)
def test_every_setting_stands_in_the_document_as_help_tells_it(module: object) -> None:
    settings, prefix = module.Settings, module.PREFIX  # type: ignore[attr-defined]
    for field in dataclasses.fields(settings):
        default = "unset" if field.default == "" else f"`{str(field.default).lower()}`"
        unit = ", ".join(f"`{each}`" for each in field.metadata["choices"]) or field.metadata["unit"]
        row = f"| `{prefix}_{field.name.upper()}` | {field.metadata['meaning']} | {unit} | {default} |"
        assert row in CONFIGURATION, f"docs/configuration.md lacks {row}"


def test_every_key_of_the_file_stands_in_the_document_and_no_other() -> None:
    documented = set()
    for cell in re.findall(r"^\| (`[^|]+) \|.*\|.*\|$", CONFIGURATION, flags=re.MULTILINE):
        before = ""
        for name in re.findall(r"`([a-z.][\w.\[\]]*)`", cell):
            # `.key` is a neighbour of the one before it: it replaces its end.
            parts = name.removeprefix(".").split(".")
            before = name if not name.startswith(".") else ".".join([*before.split(".")[: -len(parts)], *parts])
            documented.add(before)
    assert documented == set(_keys(FileSection, ""))


_MANY: dict[object, str] = {dict: ".NAME", list: "[]", tuple: "[]"}
_TOLD_IN_ONE_ROW = {"price", "part_tokens", "shadow", "tls", "api_keys", "headers"}


def _keys(section: type[BaseModel], path: str) -> Iterator[str]:
    """Every key that holds a value, as the document writes it: `[]` after a list of tables, NAME for a table's name."""
    for name, field in section.model_fields.items():
        inner = section_in(field.annotation)
        if inner is None or name in _TOLD_IN_ONE_ROW:
            yield f"{path}{name}"
        else:
            many = _MANY.get(get_origin(field.annotation), "")
            yield from _keys(inner, f"{path}{name}{many}.")


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


def test_every_error_that_a_caller_can_get_stands_in_the_document_with_its_status() -> None:
    calling = (DOCUMENTS / "calling.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z_]+) \| (`[A-Z_`, ]+`) \|", calling, flags=re.MULTILINE)
    documented = {(status, reason) for status, reasons in rows for reason in re.findall(r"[A-Z_]+", reasons)}
    assert documented == {(error.status, error.reason) for error in _raised(errors.PointsmanError)}


def _raised(error: type[errors.PointsmanError]) -> Iterator[type[errors.PointsmanError]]:
    if error not in (errors.UpstreamError, errors.FirstFailed):  # Never raised by itself; another's status and reason.
        yield error
    for each in error.__subclasses__():
        yield from _raised(each)
