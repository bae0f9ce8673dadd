"""Settings from the environment: parsed strictly, with Kubernetes' injected names left alone."""

from dataclasses import dataclass

import pytest

from pointsman.runtime.settings import SettingsError, describe, load, setting


@dataclass(frozen=True)
class Example:
    listen: str = setting("127.0.0.1:1", meaning="Where it listens.", unit="host:port")
    workers: int = setting(2, meaning="How many.", unit="threads", minimum=1, maximum=8)
    drain: float = setting(1.5, meaning="How long.", unit="seconds", minimum=0)
    fast: bool = setting(False, meaning="Be fast.", unit="true or false")
    mode: str = setting("a", meaning="Which.", unit="mode", choices=("a", "b"))


def test_unset_and_empty_variables_take_the_default() -> None:
    assert load(Example, "X", {"X_WORKERS": "", "OTHER": "1"}) == Example()


def test_values_take_the_type_of_their_default() -> None:
    loaded = load(Example, "X", {"X_WORKERS": "3", "X_DRAIN": "2", "X_FAST": "true", "X_MODE": "b"})
    assert loaded == Example(workers=3, drain=2.0, fast=True, mode="b")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("X_LISTN", "h:1", "X_LISTN is not a setting: did you mean X_LISTEN?"),
        ("X_WORKERS", "two", "X_WORKERS='two': write a number in threads"),
        ("X_WORKERS", "9", "X_WORKERS=9: write a number at least 1 and at most 8"),
        ("X_DRAIN", "nan", "X_DRAIN=nan: write a number at least 0"),
        ("X_DRAIN", "-1", "X_DRAIN=-1: write a number at least 0"),
        ("X_FAST", "maybe", "X_FAST='maybe': write true or false"),
        ("X_MODE", "c", "X_MODE='c': write one of a, b"),
    ],
)
def test_a_bad_setting_is_named_with_its_mend(name: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(Example, "X", {name: value})
    assert str(caught.value) == message


def test_names_that_kubernetes_injects_for_services_are_ignored() -> None:
    # https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables, for a Service named `x`.
    injected = {
        "X_SERVICE_HOST": "10.0.0.11",
        "X_SERVICE_PORT": "50051",
        "X_SERVICE_PORT_GRPC": "50051",
        "X_PORT": "tcp://10.0.0.11:50051",
        "X_PORT_50051_TCP": "tcp://10.0.0.11:50051",
        "X_PORT_50051_TCP_PROTO": "tcp",
        "X_PORT_50051_TCP_PORT": "50051",
        "X_PORT_50051_TCP_ADDR": "10.0.0.11",
    }
    assert load(Example, "X", injected) == Example()


def test_help_lists_every_setting_with_unit_and_default() -> None:
    text = describe(Example, "X")
    assert "X_DRAIN  [seconds; default 1.5]" in text
    assert "X_MODE  [mode; default a; one of a, b]" in text
    assert text.count("X_") == 5
