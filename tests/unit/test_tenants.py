"""The configuration file: what it means, and what each mistake is told."""

from pathlib import Path

import pytest

import dispatcher_service
from dispatcher_service.catalogue import Api, FixedAlpha, OnDisconnect, OnScorerFailure, StrongCallShare, Value
from dispatcher_service.tenants import ConfigError, load_catalogue

GOOD = """
[scorer]
address = "dns:///scorer:50051"
timeout = 0.5

[[models]]
name = "big"
price = { input = 2.50, output = 10, cached_input = 1.25 }

[[models]]
name = "small"
price = { input = 0.15, output = 0.60, reasoning = 0.7 }

[[deployments]]
name = "big-eu"
model = "big"
base_url = "https://api.example.com/v1"
upstream_model = "big-2026"
api_key_env = "EXAMPLE_KEY"

[[deployments]]
name = "small-local"
model = "small"
base_url = "http://127.0.0.1:8080/v1"

[tenants.research]
strong_model = "big"
weak_model = "small"
strong_call_share = 0.5

[tenants.support]
strong_model = "big"
weak_model = "small"
alpha = 0.6
on_scorer_failure = "reject"
allow_alpha_override = true
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "dispatcher.toml"


def problems(file: Path, text: str) -> list[str]:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_catalogue(file)
    assert all(problem.startswith(f"{file}: ") for problem in caught.value.problems)
    return [problem.removeprefix(f"{file}: ") for problem in caught.value.problems]


def test_a_file_becomes_values(file: Path) -> None:
    file.write_text(GOOD)
    catalogue = load_catalogue(file)
    assert catalogue.scorer.timeout == 0.5
    research, support = catalogue.tenants["research"], catalogue.tenants["support"]
    assert (research.dial, support.dial) == (StrongCallShare(0.5), FixedAlpha(0.6))
    assert (research.on_scorer_failure, support.on_scorer_failure) == (OnScorerFailure.WEAK, OnScorerFailure.REJECT)
    assert (research.allow_alpha_override, support.allow_alpha_override) == (False, True)
    assert catalogue.deployments["big"][0].upstream_model == "big-2026"
    assert catalogue.deployments["small"][0].upstream_model == "small"


def test_prices_are_exact_and_missing_classes_cost_what_their_kind_costs(file: Path) -> None:
    file.write_text(GOOD)
    big, small = [load_catalogue(file).models[name].price for name in ("big", "small")]
    assert (big.input, big.cached_input, big.output, big.reasoning) == (
        2_500_000_000,
        1_250_000_000,
        10_000_000_000,
        10_000_000_000,
    )
    assert (small.input, small.cached_input, small.output, small.reasoning) == (
        150_000_000,
        150_000_000,
        600_000_000,
        700_000_000,
    )


def test_a_model_may_have_several_deployments_with_keys_headers_and_limits_of_their_own(file: Path) -> None:
    azure = """
[retries]
tries = 3

[[deployments]]
name = "big-azure"
model = "big"
base_url = "https://example.openai.azure.com"
api = "azure"
api_version = "2026-02-01"
api_key_file = "/run/secrets/azure"
headers = { X-Team = "search", X-Token = { env = "TEAM_TOKEN" } }
weight = 0
max_concurrency = 8
first_token_timeout = 20
"""
    small = 'name = "small"\nfallbacks = ["big"]\non_disconnect = "drain"\ndrain_timeout = 9'
    file.write_text(
        GOOD.replace('name = "small"', small).replace("alpha = 0.6", "alpha = 0.6\nfallback_to_other_tier = true")
        + azure
    )
    catalogue = load_catalogue(file)
    eu, other = catalogue.deployments["big"]
    assert (eu.api_key, eu.weight, eu.max_concurrency) == (Value(env="EXAMPLE_KEY"), 1.0, None)
    assert (other.api, other.api_version, other.api_key) == (Api.AZURE, "2026-02-01", Value(file="/run/secrets/azure"))
    assert other.headers == (("x-team", Value(text="search")), ("x-token", Value(env="TEAM_TOKEN")))
    assert (other.weight, other.max_concurrency, other.first_token_timeout) == (0, 8, 20.0)
    assert catalogue.models["small"].fallbacks == ("big",)
    assert (catalogue.models["small"].on_disconnect, catalogue.models["small"].drain_timeout) == (
        OnDisconnect.DRAIN,
        9.0,
    )
    assert catalogue.retries.tries == 3
    assert [policy.fallback_to_other_tier for policy in catalogue.tenants.values()] == [False, True]


def test_the_shipped_file_is_good() -> None:
    shipped = Path(dispatcher_service.__file__).with_name("default.toml")
    assert list(load_catalogue(shipped).tenants) == ["default"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("strong_call_share = 0.5", "strong_cal_share = 0.5", "did you mean 'strong_call_share'?"),
        ("timeout = 0.5", "timout = 0.5", "scorer.timout: unknown key: did you mean 'timeout'?"),
        ("cached_input = 1.25", "cached = 1.25", "models.0.price.cached: unknown key: did you mean 'cached_input'?"),
        ("alpha = 0.6", "alpha = 1.6", "tenants.support.alpha: input should be less than or equal to 1, not '1.6'"),
        ("alpha = 0.6", "alpha = nan", "tenants.support.alpha: "),
        ("alpha = 0.6", "", "tenants.support: set exactly one of strong_call_share and alpha"),
        ("alpha = 0.6", "alpha = 0.6\nstrong_call_share = 0.1", "tenants.support: set exactly one of"),
        ('model = "small"', 'model = "smal"', "no such model 'smal': did you mean 'small'?"),
        ('strong_model = "big"', 'strong_model = "small"', "same as strong_model: name two models"),
        ('"reject"', '"panic"', "tenants.support.on_scorer_failure: "),
        ("input = 0.15, ", "", "models.1.price.input: missing: add it"),
        ("input = 0.15", "input = -1", "models.1.price.input: "),
        ("input = 0.15", "input = 0.00000000001", "models.1.price.input: "),
        ('name = "small-local"', 'name = "big-eu"', "deployments: 'big-eu' stands twice: remove one"),
        ("http://127.0.0.1:8080/v1", "127.0.0.1:8080", "deployments.1.base_url: write an http(s) URL"),
        ("http://127.0.0.1:8080/v1", "http://me:canary@127.0.0.1/v1", "deployments.1.base_url: write an http(s) URL"),
        (
            '"EXAMPLE_KEY"',
            '"EXAMPLE_KEY"\napi_key_file = "/k"',
            "deployments.0: set one of api_key_env and api_key_file",
        ),
        ('"EXAMPLE_KEY"', '"EXAMPLE_KEY"\napi = "azure"', 'api = "azure" and api_version go together'),
        ('"EXAMPLE_KEY"', '"EXAMPLE_KEY"\nheaders = { X-Token = "canary" }', "'X-Token' sounds secret: write"),
        ('"EXAMPLE_KEY"', '"EXAMPLE_KEY"\nheaders = { api-key = "canary" }', "use api_key_env or api_key_file"),
        ('"EXAMPLE_KEY"', '"EXAMPLE_KEY"\nheaders = { x = {} }', "set exactly one of env and file"),
        ('"EXAMPLE_KEY"', '"EXAMPLE_KEY"\nidle_timout = 3', "did you mean 'idle_timeout'?"),
        ('"EXAMPLE_KEY"', '"EXAMPLE_KEY"\nweight = -1', "deployments.0.weight: "),
        ('"EXAMPLE_KEY"', '"EXAMPLE_KEY"\nmax_concurrency = 0', "deployments.0.max_concurrency: "),
        (
            "[tenants.research]",
            "[retries]\ntrys = 3\n\n[tenants.research]",
            "retries.trys: unknown key: did you mean 'tries'?",
        ),
        ('name = "big"\n', 'name = "big"\nfallbacks = ["smal"]\n', "models.big.fallbacks: no such model 'smal'"),
        ('name = "big"\n', 'name = "big"\nfallbacks = ["big"]\n', "models.big.fallbacks: 'big' is the model itself"),
        ('name = "big"\n', 'name = "big"\non_disconnect = "drop"\n', "models.0.on_disconnect: "),
    ],
)
def test_a_mistake_is_named_with_its_key_and_mend(file: Path, old: str, new: str, problem: str) -> None:
    assert old in GOOD
    found = problems(file, GOOD.replace(old, new))
    assert any(problem in line for line in found), found
    assert "canary" not in " ".join(found), "a value that may be secret is not repeated"


def test_all_mistakes_are_named_at_once(file: Path) -> None:
    assert len(problems(file, GOOD.replace("alpha = 0.6", "alpha = 7").replace("timeout = 0.5", "timeout = -1"))) == 2


def test_a_model_without_a_price_is_refused(file: Path) -> None:
    text = GOOD.replace("price = { input = 0.15, output = 0.60, reasoning = 0.7 }", "")
    assert problems(file, text) == ["models.1.price: missing: add it"]


def test_a_model_without_a_deployment_is_refused(file: Path) -> None:
    text = GOOD[: GOOD.index('[[deployments]]\nname = "small-local"')] + GOOD[GOOD.index("[tenants.research]") :]
    assert "tenants.research.weak_model: no deployment serves 'small': add one" in problems(file, text)


def test_broken_toml_is_named_with_its_line(file: Path) -> None:
    assert "line 3" in problems(file, "[scorer]\n\naddress = \n")[0]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_catalogue(tmp_path / "none.toml")
