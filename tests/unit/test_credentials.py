"""Keys and headers: where they are found, that they rotate, and that they stay secret."""

import logging
from pathlib import Path

import pytest

from dispatcher_service.catalogue import Api, Deployment, Value
from dispatcher_service.credentials import CredentialError, Credentials

CANARY = "sk-canary-0451"


def deployment(key: Value | None = None, api: Api = Api.OPENAI, **headers: Value) -> Deployment:
    return Deployment(
        name="d",
        model="m",
        base_url="http://unused",
        upstream_model="m",
        api=api,
        api_key=key,
        headers=tuple(headers.items()),
    )


def test_each_form_of_api_has_its_own_key_header() -> None:
    credentials = Credentials([], {"KEY": CANARY})
    assert credentials.headers(deployment(Value(env="KEY"))) == {"authorization": f"Bearer {CANARY}"}
    assert credentials.headers(deployment(Value(env="KEY"), Api.AZURE)) == {"api-key": CANARY}
    assert credentials.headers(deployment()) == {}


def test_headers_come_from_the_file_the_environment_and_mounted_files(tmp_path: Path) -> None:
    (tmp_path / "tenant").write_text("blue\n")
    target = deployment(team=Value(text="search"), tier=Value(env="TIER"), tenant=Value(file=str(tmp_path / "tenant")))
    assert Credentials([target], {"TIER": "gold"}).headers(target) == {
        "team": "search",
        "tier": "gold",
        "tenant": "blue",
    }


def test_a_key_file_that_changes_is_read_again_also_when_a_link_is_swapped(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("first\n")
    target = deployment(Value(file=str(key)))
    credentials = Credentials([target], {})
    key.write_text("second-key")
    assert credentials.headers(target) == {"authorization": "Bearer second-key"}
    # As a mounted Kubernetes secret changes: a link to a new file of the same size.
    (tmp_path / "new").write_text("third--key")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    (tmp_path / "link").replace(key)
    assert credentials.headers(target) == {"authorization": "Bearer third--key"}


def test_a_key_file_that_becomes_unusable_leaves_the_last_key_and_one_log_line_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = tmp_path / "key"
    key.write_text(CANARY)
    target = deployment(Value(file=str(key)))
    credentials = Credentials([target], {})
    with caplog.at_level(logging.DEBUG):
        key.unlink()
        for _ in range(3):
            assert credentials.headers(target) == {"authorization": f"Bearer {CANARY}"}
        key.write_text("two\nlines " + CANARY)
        assert credentials.headers(target) == {"authorization": f"Bearer {CANARY}"}
    assert [record.getMessage() for record in caplog.records] == ["a key file is unusable: its last value is kept"]
    assert CANARY not in caplog.text
    key.write_text("whole-again")
    assert credentials.headers(target) == {"authorization": "Bearer whole-again"}


@pytest.mark.parametrize(
    ("content", "mend"),
    [(None, "cannot be read"), ("", "write the value alone"), (f"{CANARY}\nmore", "alone"), (f"{CANARY}ü", "alone")],
)
def test_what_is_missing_or_unusable_stops_the_start_and_is_named_without_its_value(
    tmp_path: Path, content: str | None, mend: str
) -> None:
    key = tmp_path / "key"
    if content is not None:
        key.write_text(content)
    with pytest.raises(CredentialError, match=mend) as caught:
        Credentials([deployment(Value(file=str(key)))], {})
    assert str(key) in str(caught.value)
    assert CANARY not in str(caught.value)
    with pytest.raises(CredentialError, match="deployment d: environment variable NO_SUCH_KEY is not set"):
        Credentials([deployment(Value(env="NO_SUCH_KEY"))], {})
