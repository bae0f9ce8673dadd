"""The dial on one's own prompts, by hand and through the command."""

from pathlib import Path

import numpy as np
import pytest

from dispatcher_service.routing import NEVER_STRONG, Tier, decide
from pointsman.cli import main
from tests import artifacts
from training.calibrate import dial_points
from training.tables import DataError

QUANTILES = (0.0, 0.5, 1.0)


def test_the_promise_of_a_share_by_hand() -> None:
    """100 prompts at .5 and 25 at .9: the strong model nets 25·.8 = 20. The quantile at 80 % lies on the edge."""
    probabilities = np.repeat([0.5, 0.9], [100, 25])
    [point] = dial_points(probabilities, QUANTILES, [0.2], draws=50)
    assert 0.5 < point.alpha.value <= 0.9
    assert point.realised_share == pytest.approx(0.2)
    assert point.pgr.value == pytest.approx(1.0)
    assert point.net_loss.value == pytest.approx(0.0)


def test_half_of_the_gap_is_lost_with_half_of_the_prompts_that_carry_it() -> None:
    """Probabilities .5 to .9: 2p − 1 rises from 0 to .8, so that the upper half holds three quarters of the gap."""
    [point] = dial_points(np.linspace(0.5, 0.9, 1001), QUANTILES, [0.5], draws=50)
    assert point.alpha.value == pytest.approx(0.7)
    assert point.pgr.value == pytest.approx(0.75, abs=0.001)
    assert point.net_loss.value == pytest.approx(0.1, abs=0.001)
    assert point.alpha.low < 0.7 < point.alpha.high
    assert point.pgr.low < point.pgr.value < point.pgr.high


def test_the_share_is_what_the_decision_rule_gives() -> None:
    probabilities = np.random.default_rng(0).uniform(0.4, 0.8, 500)
    for point in dial_points(probabilities, QUANTILES, [0.1, 0.3, 0.8], draws=10):
        strong = [decide(p, alpha=point.alpha.value).tier is Tier.STRONG for p in probabilities]
        assert np.mean(strong) == point.realised_share == pytest.approx(point.strong_call_share, abs=0.002)


def test_the_ends_of_the_dial_are_always_and_never() -> None:
    everything, nothing = dial_points(np.linspace(0.5, 0.9, 50), QUANTILES, [1.0, 0.0], draws=10)
    assert (everything.alpha.value, everything.realised_share, everything.pgr.value) == (0.0, 1.0, 1.0)
    assert (nothing.alpha.value, nothing.realised_share) == (NEVER_STRONG, 0.0)
    assert nothing.pgr.value == pytest.approx(0.0)


def test_prompts_unlike_the_reference_show_another_share_for_the_artefacts_alpha() -> None:
    [point] = dial_points(np.full(30, 0.7), (0.2, 0.4, 0.6), [0.5], draws=10)
    assert (point.artifact_alpha, point.artifact_share) == (0.4, 1.0)


def test_no_gap_is_expected_where_the_weak_model_wins() -> None:
    [point] = dial_points(np.linspace(0.2, 0.5, 40), QUANTILES, [0.5], draws=10)
    assert np.isnan(point.pgr.value)
    assert point.net_loss.value < 0


def test_a_handful_of_prompts_is_too_few() -> None:
    with pytest.raises(DataError, match="3 prompts are too few"):
        dial_points(np.array([0.1, 0.2, 0.3]), QUANTILES, [0.5])


def test_the_command_prints_the_alpha_of_each_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = artifacts.write(tmp_path / "a")
    words = np.random.default_rng(0)
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(" ".join(words.choice(artifacts.WORDS, size=8)) for _ in range(40)))
    arguments = ["calibrate", "--prompts", str(file), "--artifact", str(directory), "--strong-call-share"]
    assert main([*arguments, "0.3", "0"]) == 0
    printed = capsys.readouterr().out
    assert "40 prompts, static" in printed
    assert "30%" in printed
    assert "above 1" in printed
    assert main([*arguments, "30"]) == 2
    assert "must be in [0, 1]" in capsys.readouterr().err
    file.write_text("too few")
    assert main([*arguments, "0.3"]) == 1
    assert "1 prompts are too few" in capsys.readouterr().err
