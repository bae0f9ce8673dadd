"""The configuration file: what it means, and what each mistake is told."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

import dispatcher_service
from dispatcher_service.budget import Limit, Period
from dispatcher_service.catalogue import Api, FixedAlpha, OnDisconnect, OnScorerFailure, StrongCallShare, Value
from dispatcher_service.pacing_targets import ShareTarget, SpendTarget, pacing_policy
from dispatcher_service.routing import Ladder
from dispatcher_service.strategy_policies import CascadePolicy, EnsemblePolicy, OnNoScore, StrategyName
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

SMALL_PRICE = "price = { input = 0.15, output = 0.60, reasoning = 0.7 }"
DATED = "input = 1, output = 1, effective_from ="
LIMITED = GOOD.replace("price = {", "max_output_tokens = 1000\nprice = {")


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
    big, small = [load_catalogue(file).models[name].prices[0] for name in ("big", "small")]
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


def test_prices_may_change_on_a_date_and_every_price_has_a_version(file: Path) -> None:
    file.write_text(
        GOOD.replace(
            SMALL_PRICE,
            "price = [{ input = 2, output = 2, effective_from = 2026-07-01 }, { input = 1, output = 1 }]",
        )
    )
    small = load_catalogue(file).models["small"]
    july = datetime(2026, 7, 1, tzinfo=UTC).timestamp()
    assert [small.price_at(at).input for at in (0, july - 1, july)] == [10**9, 10**9, 2 * 10**9]
    assert small.price_at(0).version != small.price_at(july).version


def test_limits_are_exact_and_paced_with_a_share_or_an_alpha_beside_them(file: Path) -> None:
    limits = "usd_per_hour = 0.000000001\nusd_per_month = 1234.56"
    file.write_text(LIMITED.replace("alpha = 0.6", f"alpha = 0.6\n{limits}"))
    support = load_catalogue(file).tenants["support"]
    assert support.limits == (Limit(Period.HOUR, 1), Limit(Period.MONTH, 1_234_560_000_000))
    assert support.pacing is not None
    assert support.pacing.alpha == 0.6
    assert [target.kind for target in support.pacing.targets] == ["spend_hour", "spend_month"]
    research = load_catalogue(file).tenants["research"].pacing
    assert research is not None
    assert research.targets == (ShareTarget(0.5),)


def test_a_limit_alone_is_a_dial_and_pace_false_leaves_only_the_hard_limit(file: Path) -> None:
    file.write_text(LIMITED.replace("alpha = 0.6", "usd_per_day = 50"))
    support = load_catalogue(file).tenants["support"]
    # 3 % are left to the hard limit: at the limit itself it would bite before every midnight.
    assert (support.dial, support.pacing) == (None, pacing_policy(share=None, alpha=None, limits=support.limits))
    assert support.pacing is not None
    assert support.pacing.targets == (SpendTarget(48_500_000_000, Period.DAY),)
    file.write_text(LIMITED.replace("alpha = 0.6", "alpha = 0.6\nusd_per_day = 50\npace = false"))
    support = load_catalogue(file).tenants["support"]
    assert (support.dial, support.pacing, len(support.limits)) == (FixedAlpha(0.6), None, 1)


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
        ("alpha = 0.6", "", "tenants.support: set strong_call_share, alpha, or a limit such as usd_per_day"),
        ("alpha = 0.6", "alpha = 0.6\nstrong_call_share = 0.1", "tenants.support: set one of strong_call_share and"),
        ("alpha = 0.6", "usd_per_day = 5\npace = false", "tenants.support: set strong_call_share, alpha, or a limit"),
        ("alpha = 0.6", "alpha = 0.6\nusd_per_day = 5", "but models.big.max_output_tokens is not set"),
        ("alpha = 0.6", "alpha = 0.6\nusd_per_day = -1", "tenants.support.usd_per_day: "),
        ("alpha = 0.6", "alpha = 0.6\nusd_per_day = 9_000_001", "tenants.support.usd_per_day: "),
        ("alpha = 0.6", "alpha = 0.6\nusd_per_hour = 0.0000000001", "tenants.support.usd_per_hour: "),
        ("alpha = 0.6", "alpha = 0.6\non_exhausted = 'borrow'", "tenants.support.overdraft_usd: missing: say how far"),
        ("alpha = 0.6", "alpha = 0.6\noverdraft_usd = 1", "tenants.support.overdraft_usd: only for"),
        (SMALL_PRICE, "price = []", "models.1.price: list should have at least 1 item"),
        (
            SMALL_PRICE,
            f"price = [{{ {DATED} 2026-01-01T10:00:00 }}]",
            "price.0.effective_from: write a date",
        ),
        (
            SMALL_PRICE,
            f"price = [{{ {DATED} 2026-01-01 }}, {{ {DATED} 2026-01-01T01:00:00+01:00 }}]",
            "models.small.price: two entries have the same effective_from: keep one",
        ),
        ('model = "small"', 'model = "smal"', "no such model 'smal': did you mean 'small'?"),
        ('strong_model = "big"', 'strong_model = "small"', "same as strong_model: name two models"),
        ('strong_model = "big"', "", "tenants.research.strong_model: missing: add it, or list models"),
        ('strong_model = "big"', 'models = ["big", "small"]', "models: stands in place of strong_model and weak_model"),
        ('strong_model = "big"', 'models = ["big"]', "tenants.research.models: "),
        ('strong_model = "big"', 'models = ["big", "smal"]', "models: no such model 'smal': did you mean 'small'?"),
        ('strong_model = "big"', 'models = ["big", "small", "big"]', "models: 'big' stands twice: remove one"),
        ('strong_model = "big"', 'strong_model = "big"\nobjective = "quality"', "tenants.research.objective: "),
        ('name = "big"\n', 'name = "big"\ncontext_window = 0\n', "models.0.context_window: "),
        ('"reject"', '"panic"', "tenants.support.on_scorer_failure: "),
        ("input = 0.15, ", "", "models.1.price.input: missing: add it"),
        ("input = 0.15", "input = -1", "models.1.price.input: "),
        ("input = 0.15", "input = 0.00000000001", "models.1.price.input: "),
        ('name = "small-local"', 'name = "big-eu"', "deployments: 'big-eu' stands twice: remove one"),
        ('"dns:///scorer:50051"', '"embedded"\ntls = {}', "scorer: tls is for scorers that are called over a network"),
        ("alpha = 0.6", 'alpha = 0.6\nallowed_models = ["big"]', "weak_model: 'small' is not among allowed_models"),
        ("alpha = 0.6", 'alpha = 0.6\nallowed_models = ["big", "smal"]', "allowed_models: no such model 'smal'"),
        ("alpha = 0.6", "alpha = 0.6\nrequests_per_minute = 0", "tenants.support.requests_per_minute: "),
        ("timeout = 0.5", 'artifact = "/a"', "scorer: artifact is for address = "),
        ("timeout = 0.5", 'tls = { certificate = "/c" }', "scorer.tls: certificate and key belong together"),
        ("timeout = 0.5", 'canaries = [{ name = "main", weight = 0.1 }]', "'main' stands twice, or is the main"),
        ("timeout = 0.5", 'canaries = [{ name = "v2", weight = 2 }]', "scorer.canaries.0.weight: "),
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


def test_a_list_of_models_is_ordered_by_price_and_a_pair_as_it_is_named(file: Path) -> None:
    listed = GOOD.replace('strong_model = "big"\nweak_model = "small"', 'models = ["small", "big"]', 1)
    assert listed != GOOD
    file.write_text(listed)
    assert load_catalogue(file).tenants["research"].ladder == Ladder(("small", "big"), known_as=("small", "big"))
    # Three times input plus output, so that 3 · 30 is more than 3 · 2.50 + 10.
    cheap_output = listed.replace('name = "big"\n', 'name = "big"\nscorer_name = "gpt-4"\n', 1)
    cheap_output = cheap_output.replace(SMALL_PRICE, "price = { input = 30, output = 0 }")
    file.write_text(cheap_output)
    research, support = (load_catalogue(file).tenants[name] for name in ("research", "support"))
    assert research.ladder == Ladder(("big", "small"), known_as=("gpt-4", "small"))
    assert support.ladder.models == ("small", "big"), "the file says which is strong"


def test_two_models_of_a_list_need_names_of_their_own_at_the_scorer(file: Path) -> None:
    text = GOOD.replace('strong_model = "big"\nweak_model = "small"', 'models = ["big", "small"]', 1)
    text = text.replace('name = "small"\n', 'name = "small"\nscorer_name = "big"\n', 1)
    assert problems(file, text) == [
        "tenants.research.models: two of them are 'big' to scorers: give each its own scorer_name"
    ]


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


THREE = GOOD.replace(
    "[[deployments]]",
    """[[models]]
name = "medium"
price = { input = 1, output = 2 }

[[deployments]]
name = "medium-1"
model = "medium"
base_url = "http://127.0.0.1:8080/v1"

[[deployments]]""",
    1,
)
CASCADE = """
[tenants.support2]
models = ["big", "small", "medium"]
strategy = "cascade"

[tenants.support2.cascade]
thresholds = [0.7, 0.6]
hard_alpha = 0.8
on_no_score = "accept"
"""
ENSEMBLE = """
[tenants.support2]
models = ["big", "small", "medium"]
strategy = "ensemble"
"""


def test_a_cascade_has_a_threshold_for_every_model_but_the_last(file: Path) -> None:
    file.write_text(THREE + CASCADE)
    policy = load_catalogue(file).tenants["support2"]
    assert (policy.strategy, policy.ladder.models) == (StrategyName.CASCADE, ("small", "medium", "big"))
    assert policy.cascade == CascadePolicy(thresholds=(0.7, 0.6), hard_alpha=0.8, on_no_score=OnNoScore.ACCEPT)
    assert (policy.dial, policy.pacing, policy.ensemble) == (None, None, None)


def test_an_ensemble_needs_no_table(file: Path) -> None:
    file.write_text(THREE + ENSEMBLE)
    policy = load_catalogue(file).tenants["support2"]
    assert (policy.strategy, policy.ensemble) == (StrategyName.ENSEMBLE, EnsemblePolicy())


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("thresholds = [0.7, 0.6]", "thresholds = [0.7]", ".cascade.thresholds: write 2: one for each model but the"),
        ("hard_alpha = 0.8", "hard_alpha = 0.4\neasy_alpha = 0.5", ".cascade.easy_alpha: above hard_alpha"),
        ('strategy = "cascade"', 'strategy = "route"\nalpha = 0.5', ".cascade: only for strategy = 'cascade'"),
        ('strategy = "cascade"', 'strategy = "cascade"\nalpha = 0.5', ".alpha: only for strategy = 'route'"),
        ('strategy = "cascade"', 'strategy = "cascade"\nensemble = {}', ".ensemble: only for strategy = 'ensemble'"),
        ('strategy = "cascade"', 'strategy = "climb"', ".strategy: input should be 'route', 'cascade' or 'ensemble'"),
        ('address = "dns:///scorer:50051"', 'address = "embedded"', ".strategy: 'cascade' needs a scorer service"),
        ("thresholds = [0.7, 0.6]", "", ".cascade.thresholds: missing: add it"),
        ("[tenants.support2.cascade]", "[tenants.support2.ensemble]\nfuse_with = 'huge'\n#", "support2.ensemble"),
    ],
)
def test_what_does_not_fit_a_strategy_is_named(file: Path, old: str, new: str, problem: str) -> None:
    text = THREE + CASCADE
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_catalogue(file)
    assert any(problem in line for line in caught.value.problems), caught.value.problems


def test_only_a_model_of_the_tenant_fuses(file: Path) -> None:
    file.write_text(THREE + ENSEMBLE + '[tenants.support2.ensemble]\nfuse_with = "huge"\n')
    with pytest.raises(ConfigError, match=r"ensemble.fuse_with: 'huge' is none of the tenant's models"):
        load_catalogue(file)
