"""The scorer's settings: what is refused, and what the refusal says."""

from pathlib import Path

import pytest

from pointsman.runtime.settings import SettingsError, load
from scorer_service.settings import SHIPPED_ARTIFACT, Settings


def _load(**environ: str) -> Settings:
    return load(Settings, "SCORER", environ)


def test_the_shipped_artifact_is_served_by_default() -> None:
    assert _load().artifact_directories() == {"default": SHIPPED_ARTIFACT}


def test_artifacts_are_named_in_order() -> None:
    directories = _load(SCORER_ARTIFACTS="b=/x/b, a=c=d").artifact_directories()
    assert list(directories.items()) == [("b", Path("/x/b")), ("a", Path("c=d"))]


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"SCORER_ARTIFACTS": "/x/b"}, "'/x/b' is not NAME=DIR"),
        ({"SCORER_ARTIFACTS": "a=x,"}, "'' is not NAME=DIR"),
        ({"SCORER_ARTIFACTS": "Big Name=x"}, "'Big Name=x' is not NAME=DIR"),
        ({"SCORER_ARTIFACTS": "a=x,a=y"}, "'a' appears twice"),
        ({"SCORER_MAX_QUEUE": "100"}, "SCORER_MAX_QUEUE=100: write at least 256"),
        ({"SCORER_MODE": "prod"}, "write one of development, production"),
        ({"SCORER_MAX_BATCH": "0"}, "SCORER_MAX_BATCH=0: write a number at least 1"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as raised:
        _load(**environ)
    assert problem in str(raised.value)
