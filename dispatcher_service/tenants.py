"""The TOML file to frozen values. What this accepts cannot be wrong later: it is parsed, not validated.

Prices are written in USD per million tokens and read as exact decimals, never as floats.
"""

import difflib
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pydantic

from dispatcher_service.budget import Limit, OnExhausted, Period
from dispatcher_service.catalogue import (
    Catalogue,
    Deployment,
    FixedAlpha,
    Model,
    ScorerTarget,
    StrongCallShare,
    TenantPolicy,
)
from dispatcher_service.chat import OWNED_KEYS, PartKind
from dispatcher_service.pacing_targets import pacing_policy
from dispatcher_service.pricing import NANO_USD_PER_USD, Price
from dispatcher_service.routing import ModelPair
from dispatcher_service.sections import (
    DatedPriceSection,
    DeploymentSection,
    FileSection,
    ModelSection,
    PartTokensSection,
    PriceSection,
    TenantSection,
    describe,
)


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
    problems += [
        f"deployments: model {name!r} has several: keep one"
        for name in _repeated([deployment.model for deployment in file.deployments])
    ]
    for section in file.models:
        begins = [price.effective_from for price in _prices(section.price)]
        if len(set(begins)) < len(begins):
            problems.append(f"models.{section.name}.price: two entries have the same effective_from: keep one")
    for deployment in file.deployments:
        if deployment.model not in models:
            problems.append(f"deployments.{deployment.name}.model: {_unknown('model', deployment.model, models)}")
    served = {deployment.model for deployment in file.deployments}
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
        problems += [f"tenants.{tenant_id}{problem}" for problem in _dial_problems(tenant)]
        problems += [f"tenants.{tenant_id}{problem}" for problem in _limit_problems(tenant, file.models)]
    return problems


def _dial_problems(tenant: TenantSection) -> Iterator[str]:
    if tenant.alpha is not None and tenant.strong_call_share is not None:
        yield ": set one of strong_call_share and alpha, not both"
    if tenant.alpha is None and tenant.strong_call_share is None and not (tenant.pace and _limits(tenant)):
        yield ": set strong_call_share, alpha, or a limit such as usd_per_day that is paced"


def _limit_problems(tenant: TenantSection, models: list[ModelSection]) -> Iterator[str]:
    borrows = tenant.on_exhausted is OnExhausted.BORROW
    if borrows and not tenant.overdraft_usd:
        yield ".overdraft_usd: missing: say how far on_exhausted = 'borrow' may go over a limit"
    if not borrows and tenant.overdraft_usd is not None:
        yield ".overdraft_usd: only for on_exhausted = 'borrow': remove it"
    if not _limits(tenant):
        return
    for model in models:
        if model.name in (tenant.strong_model, tenant.weak_model) and model.max_output_tokens is None:
            yield (
                f": has a limit, but models.{model.name}.max_output_tokens is not set, so that a call without "
                "max_tokens has no bound: set it"
            )


def _freeze(file: FileSection) -> Catalogue:
    return Catalogue(
        scorer=ScorerTarget(address=file.scorer.address, timeout=file.scorer.timeout),
        models={
            model.name: Model(
                name=model.name,
                prices=_prices(model.price),
                part_tokens=_part_tokens(model.part_tokens),
                max_output_tokens=model.max_output_tokens,
                prompt_overhead_tokens=model.prompt_overhead_tokens,
            )
            for model in file.models
        },
        deployments=_by_model(file.deployments),
        tenants={tenant_id: _policy(tenant_id, tenant) for tenant_id, tenant in file.tenants.items()},
    )


def _policy(tenant_id: str, tenant: TenantSection) -> TenantPolicy:
    limits = _limits(tenant)
    paced = pacing_policy(
        share=tenant.strong_call_share,
        alpha=tenant.alpha,
        limits=limits,
        window_calls=tenant.pacing_window_calls,
        memory_calls=tenant.pacing_memory_calls,
        lease_calls=tenant.pacing_lease_calls,
    )
    return TenantPolicy(
        tenant_id=tenant_id,
        pair=ModelPair(strong=tenant.strong_model, weak=tenant.weak_model),
        dial=_dial(tenant),
        on_scorer_failure=tenant.on_scorer_failure,
        allow_alpha_override=tenant.allow_alpha_override,
        extra_body_keys=frozenset(tenant.extra_body_keys),
        scorer=tenant.scorer,
        limits=limits,
        on_exhausted=tenant.on_exhausted,
        overdraft=_nano(tenant.overdraft_usd or Decimal(0)),
        on_ledger_failure=tenant.on_ledger_failure,
        pacing=paced if tenant.pace else None,
    )


def _limits(tenant: TenantSection) -> tuple[Limit, ...]:
    amounts = {
        Period.HOUR: tenant.usd_per_hour,
        Period.DAY: tenant.usd_per_day,
        Period.MONTH: tenant.usd_per_month,
    }
    return tuple(Limit(period, _nano(amount)) for period, amount in amounts.items() if amount is not None)


def _by_model(sections: list[DeploymentSection]) -> dict[str, tuple[Deployment, ...]]:
    by_model: dict[str, tuple[Deployment, ...]] = {}
    for section in sections:
        deployment = Deployment(
            name=section.name,
            model=section.model,
            base_url=section.base_url,
            upstream_model=section.upstream_model or section.model,
            api_key_env=section.api_key_env or "",
            max_tokens_parameter=section.max_tokens_parameter,
            timeout=section.timeout,
            connect_timeout=section.connect_timeout,
        )
        by_model[section.model] = (*by_model.get(section.model, ()), deployment)
    return by_model


def _dial(tenant: TenantSection) -> FixedAlpha | StrongCallShare | None:
    if tenant.alpha is not None:
        return FixedAlpha(tenant.alpha)
    return None if tenant.strong_call_share is None else StrongCallShare(tenant.strong_call_share)


def _part_tokens(bounds: PartTokensSection) -> dict[PartKind, int]:
    return {PartKind(kind): bound for kind, bound in bounds if bound is not None}


def _prices(section: PriceSection | list[DatedPriceSection]) -> tuple[Price, ...]:
    if isinstance(section, PriceSection):
        return (_price(section, 0),)
    dated = [_price(entry, entry.effective_from) for entry in section]
    return tuple(sorted(dated, key=lambda price: price.effective_from))


def _price(price: PriceSection, effective_from: int) -> Price:
    return Price(
        input=_nano(price.input),
        # Upstreams that give no discount bill cached tokens as input and reasoning as output.
        cached_input=_nano(price.input if price.cached_input is None else price.cached_input),
        cache_write=_nano(price.input if price.cache_write is None else price.cache_write),
        output=_nano(price.output),
        reasoning=_nano(price.output if price.reasoning is None else price.reasoning),
        effective_from=effective_from,
    )


def _nano(usd: Decimal) -> int:
    return int(usd * NANO_USD_PER_USD)


def _unknown(what: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"no such {what} {name!r}: " + (f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}")


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
