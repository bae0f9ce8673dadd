"""The TOML file to frozen values. What this accepts cannot be wrong later: it is parsed, not validated.

Prices are written in USD per million tokens and read as exact decimals, never as floats.
"""

import difflib
import tomllib
from decimal import Decimal
from pathlib import Path

import pydantic

from dispatcher_service.auth_sections import auth_policy, auth_problems
from dispatcher_service.catalogue import (
    Catalogue,
    FixedAlpha,
    Model,
    ScorerTarget,
    Shadow,
    StrongCallShare,
    TenantPolicy,
)
from dispatcher_service.chat import OWNED_KEYS, PartKind
from dispatcher_service.pricing import NANO_USD_PER_USD, Price
from dispatcher_service.routing import ModelPair
from dispatcher_service.sections import (
    FileSection,
    ModelSection,
    PartTokensSection,
    PriceSection,
    ShadowSection,
    TenantSection,
    describe,
)
from dispatcher_service.upstream_sections import freeze_deployments, freeze_retries


class ConfigError(Exception):
    """The file cannot be used. `problems` holds one line each: file, line or key, and the mend."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def load_catalogue(path: Path) -> Catalogue:
    """Read and check a configuration file. Reads no environment and calls nothing.

    Raises:
        ConfigError: with every problem found, not only the first.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    try:
        raw = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: not TOML: {error}"]) from error
    try:
        parsed = FileSection.model_validate(raw)
    except pydantic.ValidationError as error:
        raise ConfigError([f"{path}: {describe(problem)}" for problem in error.errors()]) from error
    problems = _inconsistencies(parsed)
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    return _freeze(parsed)


def _inconsistencies(file: FileSection) -> list[str]:
    problems: list[str] = []
    models = [model.name for model in file.models]
    problems += [f"models: {name!r} stands twice: remove one" for name in _repeated(models)]
    problems += [
        f"deployments: {name!r} stands twice: remove one" for name in _repeated([d.name for d in file.deployments])
    ]
    for deployment in file.deployments:
        if deployment.model not in models:
            problems.append(f"deployments.{deployment.name}.model: {_unknown('model', deployment.model, models)}")
    served = {deployment.model for deployment in file.deployments}
    for section in file.models:
        for name in section.fallbacks:
            problems += _fallback_problems(section.name, name, models, served)
    for tenant_id, tenant in file.tenants.items():
        for key, model in (("strong_model", tenant.strong_model), ("weak_model", tenant.weak_model)):
            if model not in models:
                problems.append(f"tenants.{tenant_id}.{key}: {_unknown('model', model, models)}")
            elif model not in served:
                problems.append(f"tenants.{tenant_id}.{key}: no deployment serves {model!r}: add one")
        if tenant.strong_model == tenant.weak_model:
            problems.append(f"tenants.{tenant_id}.weak_model: same as strong_model: name two models")
        problems += [
            f"tenants.{tenant_id}.extra_body_keys: {key!r} belongs to a request field or to us: remove it"
            for key in tenant.extra_body_keys
            if key in OWNED_KEYS
        ]
        if (tenant.alpha is None) == (tenant.strong_call_share is None):
            problems.append(f"tenants.{tenant_id}: set exactly one of strong_call_share and alpha")
        problems += [f"tenants.{tenant_id}.shadow: {problem}" for problem in _shadow_problems(tenant.shadow)]
    problems += auth_problems(file.auth, file.tenants, file.admins)
    return problems


def _freeze(file: FileSection) -> Catalogue:
    return Catalogue(
        auth=auth_policy(file.auth, file.tenants, file.admins),
        scorer=ScorerTarget(address=file.scorer.address, timeout=file.scorer.timeout),
        retries=freeze_retries(file.retries),
        models={model.name: _model(model) for model in file.models},
        deployments=freeze_deployments(file.deployments),
        tenants={
            tenant_id: TenantPolicy(
                tenant_id=tenant_id,
                pair=ModelPair(strong=tenant.strong_model, weak=tenant.weak_model),
                dial=_dial(tenant),
                on_scorer_failure=tenant.on_scorer_failure,
                allow_alpha_override=tenant.allow_alpha_override,
                extra_body_keys=frozenset(tenant.extra_body_keys),
                scorer=tenant.scorer,
                fallback_to_other_tier=tenant.fallback_to_other_tier,
                sticky=tenant.sticky,
                conversation_ttl=tenant.conversation_ttl,
                log_text=tenant.log_text,
                text_ttl=tenant.text_ttl,
                shadow=_shadow(tenant.shadow),
                idempotency_retention=tenant.idempotency_retention,
            )
            for tenant_id, tenant in file.tenants.items()
        },
    )


def _fallback_problems(model: str, fallback: str, models: list[str], served: set[str]) -> list[str]:
    if fallback not in models:
        return [f"models.{model}.fallbacks: {_unknown('model', fallback, models)}"]
    if fallback == model:
        return [f"models.{model}.fallbacks: {fallback!r} is the model itself: remove it"]
    if fallback not in served:
        return [f"models.{model}.fallbacks: no deployment serves {fallback!r}: add one"]
    return []


def _model(section: ModelSection) -> Model:
    return Model(
        name=section.name,
        price=_price(section.price),
        part_tokens=_part_tokens(section.part_tokens),
        fallbacks=section.fallbacks,
        on_disconnect=section.on_disconnect,
        drain_timeout=section.drain_timeout,
    )


def _dial(tenant: TenantSection) -> FixedAlpha | StrongCallShare:
    if tenant.alpha is not None:
        return FixedAlpha(tenant.alpha)
    assert tenant.strong_call_share is not None  # _inconsistencies has refused a tenant with neither
    return StrongCallShare(tenant.strong_call_share)


def _shadow(section: ShadowSection | None) -> Shadow | None:
    if section is None:
        return None
    share = None if section.strong_call_share is None else StrongCallShare(section.strong_call_share)
    return Shadow(dial=share if section.alpha is None else FixedAlpha(section.alpha), scorer=section.scorer)


def _shadow_problems(section: ShadowSection | None) -> list[str]:
    if section is None:
        return []
    if section.alpha is not None and section.strong_call_share is not None:
        return ["set one of strong_call_share and alpha"]
    if section.alpha is None and section.strong_call_share is None and not section.scorer:
        return ["set strong_call_share, alpha or scorer: it tries nothing"]
    return []


def _part_tokens(bounds: PartTokensSection) -> dict[PartKind, int]:
    return {PartKind(kind): bound for kind, bound in bounds if bound is not None}


def _price(price: PriceSection) -> Price:
    def nano(usd: Decimal) -> int:
        return int(usd * NANO_USD_PER_USD)

    return Price(
        input=nano(price.input),
        # Upstreams that give no discount bill cached tokens as input and reasoning as output.
        cached_input=nano(price.input if price.cached_input is None else price.cached_input),
        cache_write=nano(price.input if price.cache_write is None else price.cache_write),
        output=nano(price.output),
        reasoning=nano(price.output if price.reasoning is None else price.reasoning),
    )


def _unknown(what: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"no such {what} {name!r}: " + (f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}")


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
