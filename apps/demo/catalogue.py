"""The dispatcher's configuration for the demo: two tenants, and models that are local or OpenAI's."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

SHARES: Mapping[str, float] = {"research": 0.5, "support": 0.2}
"""The tenants and the share of their calls that they want to go strong."""

KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model with its prices in USD per million tokens, written as decimals."""

    name: str
    input: str
    cached_input: str
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """Who answers.

    `caveat` ends the summary where the numbers need one; `notice` is said before anything is sent.
    """

    strong: Model
    weak: Model
    base_url: str
    api_key_env: str
    notice: str
    caveat: str


def local_models(address: str) -> Models:
    """Both tiers served by the local upstream at `host:port`, at invented prices."""
    return Models(
        strong=Model(name="example-strong", input="2.50", cached_input="1.25", output="10.00"),
        weak=Model(name="example-weak", input="0.15", cached_input="0.075", output="0.60"),
        base_url=f"http://{address}/v1",
        api_key_env="",
        notice=f"{KEY_VARIABLE} is not set: one small local model answers for both tiers, at example prices.",
        caveat="at example prices, one local model behind both tiers",
    )


def openai_models() -> Models:
    """OpenAI's models at the list prices of November 2026, paid with the caller's key."""
    return Models(
        strong=Model(name="gpt-4.1", input="2.00", cached_input="0.50", output="8.00"),
        weak=Model(name="gpt-4.1-mini", input="0.40", cached_input="0.10", output="1.60"),
        base_url="https://api.openai.com/v1",
        api_key_env=KEY_VARIABLE,
        notice=f"{KEY_VARIABLE} is set: OpenAI's models answer, and the calls cost real money (a few cents at most).",
        caveat="",
    )


def toml(
    models: Models, *, scorer: str, more_tenants: Mapping[str, str] = MappingProxyType({}), canary: str = ""
) -> str:
    """The dispatcher's configuration file.

    Args:
        models: who answers, for every tenant.
        scorer: the scorer's `host:port`.
        more_tenants: tenants beside those of `SHARES`: from the name to the lines of its policy.
        canary: a `[[scorer.canaries]]` section; empty for none.
    """
    sections = [
        # More patient than a service should be: on a laptop the local model keeps every core busy.
        f'[scorer]\naddress = "{scorer}"\ntimeout = 2.0\n',
        canary,
    ]
    for model in (models.strong, models.weak):
        sections.append(
            f"[[models]]\n"
            f'name = "{model.name}"\n'
            f"price = {{ input = {model.input}, cached_input = {model.cached_input}, output = {model.output} }}\n"
            "max_output_tokens = 4096\n"  # What a call without max_tokens may cost: tenants with limits need a bound.
        )
        sections.append(
            f"[[deployments]]\n"
            f'name = "{model.name}"\n'
            f'model = "{model.name}"\n'
            f'base_url = "{models.base_url}"\n' + (f'api_key_env = "{models.api_key_env}"\n' * bool(models.api_key_env))
        )
    # Twelve calls are to show that a share comes out: a service holds it over a thousand.
    ours = {tenant: f"strong_call_share = {share}\npacing_window_calls = 20\n" for tenant, share in SHARES.items()}
    for tenant, policy in {**ours, **more_tenants}.items():
        sections.append(
            f'[tenants.{tenant}]\nstrong_model = "{models.strong.name}"\nweak_model = "{models.weak.name}"\n' + policy
        )
    return "\n".join(sections)
