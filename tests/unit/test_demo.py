"""What the demo says: its arithmetic, its table, and the configuration that it writes for the dispatcher."""

import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from apps.demo.catalogue import SHARES, Models, local_models, openai_models, toml
from apps.demo.prompts import PROMPTS
from apps.demo.report import Routed, shares, summary, table, usd
from dispatcher_service.catalogue import StrongCallShare, Value
from dispatcher_service.tenants import load_catalogue
from pointsman.client import AlphaSource, CostSource, Decision, Reason, Tier

ROOT = Path(__file__).resolve().parents[2]


def routed(
    tier: Tier, *, cost: int, other: int, tenant: str = "research", prompt: str = "Why?", win: float | None = 0.5
) -> Routed:
    decision = Decision(
        tier=tier,
        model=f"example-{tier}",
        reason=Reason.SCORER_UNAVAILABLE if win is None else Reason.BELOW_ALPHA,
        alpha=None if win is None else 0.6,
        alpha_source=AlphaSource.SHARE,
        win_probability=win,
        scorer="default",
        scorer_version="abc",
        pair_mismatch=False,
        cost_nano_usd=cost,
        other_tier_cost_nano_usd=other,
        cost_source=CostSource.REPORTED,
    )
    return Routed(tenant, prompt, decision)


def test_the_summary_adds_up_costs_and_what_all_strong_would_have_cost() -> None:
    rows = [
        routed(Tier.STRONG, cost=1_000_000, other=100_000),
        routed(Tier.WEAK, cost=100_000, other=2_000_000),
        routed(Tier.WEAK, cost=150_000, other=2_000_000),
    ]
    # All-strong: 1,000,000 + 2,000,000 + 2,000,000 nano-USD; paid: 1,250,000; saved: 3,750,000, which is 75 %.
    assert summary(rows, caveat="") == (
        "routed 3 prompts: 1 strong (33%), cost $0.001250, saved $0.003750 (75%) vs all-strong"
    )


def test_the_summary_ends_with_the_caveat_where_there_is_one() -> None:
    line = summary([routed(Tier.STRONG, cost=10, other=1)], caveat=local_models("127.0.0.1:1").caveat)
    assert line == (
        "routed 1 prompts: 1 strong (100%), cost $0.000000, saved $0.000000 (0%) vs all-strong "
        "(at example prices, one local model behind both tiers)"
    )


def test_nothing_routed_and_nothing_paid_divide_by_no_zero() -> None:
    assert summary([], caveat="") == (
        "routed 0 prompts: 0 strong (0%), cost $0.000000, saved $0.000000 (0%) vs all-strong"
    )


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "$0.000000"),
        (499, "$0.000000"),
        (500, "$0.000001"),
        (1_234_567_890, "$1.234568"),
        (9_007_199_254_740_993_000_000, "$9007199254740.993000"),  # 2^53 + 1 micro-USD: no float has touched it
        (-2_500, "-$0.000003"),
    ],
)
def test_money_becomes_dollars_by_integer_arithmetic(nano: int, text: str) -> None:
    assert usd(nano) == text


def test_shares_are_counted_per_tenant() -> None:
    rows = [
        routed(Tier.STRONG, cost=1, other=1, tenant="research"),
        routed(Tier.WEAK, cost=1, other=1, tenant="research"),
        routed(Tier.WEAK, cost=1, other=1, tenant="support"),
    ]
    assert shares(rows, {"research": 0.5, "support": 0.2}) == [
        "research: wants 50% strong, got 1 of 2 (50%)",
        "support: wants 20% strong, got 0 of 1 (0%)",
    ]


def test_the_table_shows_prompt_win_probability_alpha_model_and_cost() -> None:
    rows = [
        routed(Tier.STRONG, cost=1_234_567, other=1, prompt="Is [bold]this[/bold]\na prompt?", win=0.4321),
        routed(Tier.STRONG, cost=1, other=1, win=None),
    ]
    console = Console(width=110)
    with console.capture() as captured:
        console.print(table(rows, width=110))
    first, second = [line.split() for line in captured.get().splitlines() if "research" in line]
    assert first == [
        "research",
        "Is",
        "[bold]this[/bold]",
        "a",
        "prompt?",
        "0.432",
        "0.600",
        "example-strong",
        "$0.001235",
    ]
    assert second == ["research", "Why?", "—", "—", "example-strong", "$0.000000"]


def test_the_table_keeps_its_numbers_on_a_narrow_terminal() -> None:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table([routed(Tier.STRONG, cost=1_234_567, other=1, prompt="word " * 40)], width=80))
    [line] = [line for line in captured.get().splitlines() if "research" in line]
    assert line.split()[-4:] == ["0.500", "0.600", "example-strong", "$0.001235"]


@pytest.mark.parametrize("models", [local_models("127.0.0.1:8080"), openai_models()], ids=["local", "openai"])
def test_the_dispatcher_accepts_the_configuration(tmp_path: Path, models: Models) -> None:
    path = tmp_path / "dispatcher.toml"
    path.write_text(toml(models, scorer="127.0.0.1:50051"), encoding="utf-8")
    catalogue = load_catalogue(path)
    assert {name: policy.dial for name, policy in catalogue.tenants.items()} == {
        name: StrongCallShare(share) for name, share in SHARES.items()
    }
    assert catalogue.scorer.address == "127.0.0.1:50051"


def test_the_key_goes_to_openai_and_never_to_the_local_model(tmp_path: Path) -> None:
    path = tmp_path / "dispatcher.toml"
    path.write_text(toml(openai_models(), scorer="127.0.0.1:1"), encoding="utf-8")
    for deployment in load_catalogue(path).all_deployments():
        assert (deployment.base_url, deployment.api_key) == ("https://api.openai.com/v1", Value(env="OPENAI_API_KEY"))
        assert deployment.max_tokens_parameter == "max_completion_tokens"
    path.write_text(toml(local_models("127.0.0.1:8080"), scorer="127.0.0.1:1"), encoding="utf-8")
    for deployment in load_catalogue(path).all_deployments():
        assert (deployment.base_url, deployment.api_key) == ("http://127.0.0.1:8080/v1", None)


def test_prompts_are_many_and_each_is_another() -> None:
    assert len(set(PROMPTS)) == len(PROMPTS) >= 20


def test_the_command_line_needs_no_package_of_its_commands_to_show_help() -> None:
    # -S leaves out site-packages: only the standard library and this repository are there.
    done = subprocess.run(
        [sys.executable, "-S", "-m", "pointsman.cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {"demo", "run", "train"} <= {line.split()[0] for line in done.stdout.splitlines() if line.strip()}


def test_a_missing_package_is_one_line_that_names_the_extra() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "pointsman.cli", "demo"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "error: pointsman demo needs the package 'rich': pip install 'pointsman[scorer,dispatcher,demo]'\n"
    )
