"""Logs: what gRPC says of callers who went away is information, and no error with a traceback."""

import json
import logging
from collections.abc import Iterator

import pytest

from pointsman.runtime import logs

GRPC = "grpc._cython.cygrpc"


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root, grpc = logging.getLogger(), logging.getLogger(GRPC)
    handlers, level, filters = root.handlers[:], root.level, grpc.filters[:]
    yield
    root.handlers[:], root.level, grpc.filters[:] = handlers, level, filters


def _complain(text: str) -> None:
    try:
        raise RuntimeError("gone")
    except RuntimeError:
        logging.getLogger(GRPC).exception(text)


def test_a_caller_who_goes_away_as_its_answer_is_sent_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    _complain("ExecuteBatchError raised in core by servicer method [/x/Complete]")
    entry = json.loads(capsys.readouterr().err)
    assert entry["level"] == "info"
    assert "exception" not in entry


def test_it_is_silent_where_only_warnings_are_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "json")
    _complain("ExecuteBatchError raised in core by servicer method [/x/Complete]")
    assert capsys.readouterr().err == ""


def test_what_else_grpc_complains_of_stays_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    _complain("Unexpected exception in servicer method [/x/Complete]")
    entry = json.loads(capsys.readouterr().err)
    assert entry["level"] == "error"
    assert "RuntimeError: gone" in entry["exception"]
