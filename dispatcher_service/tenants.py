"""The TOML file to frozen values. What this accepts cannot be wrong later: it is parsed, not validated.

Prices are written in USD per million tokens and read as exact decimals, never as floats.
"""

import difflib
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pydantic

from dispatcher_service import freezing
from dispatcher_service.auth_sections import auth_problems
from dispatcher_service.budget import OnExhausted
from dispatcher_service.catalogue import (
    Catalogue,
)
from dispatcher_service.chat import OWNED_KEYS
from dispatcher_service.scorer_sections import scorer_problems
from dispatcher_service.scorer_targets import EMBEDDED
from dispatcher_service.sections import (
    FileSection,
    ModelSection,
    ShadowSection,
    TenantSection,
    describe,
)
from dispatcher_service.strategy_policies import StrategyName
from dispatcher_service.strategy_sections import strategy_problems


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
    return freezing.catalogue(read_file(path))


def read_file(path: Path) -> FileSection:
    """The file's sections, known to agree. Raises as `load_catalogue` does."""
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
    problems = inconsistencies(parsed)
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    return parsed


def inconsistencies(file: FileSection) -> list[str]:
    """What does not fit together, one line each: the key and the mend."""
    problems: list[str] = []
    models = [model.name for model in file.models]
    problems += [f"models: {name!r} stands twice: remove one" for name in _repeated(models)]
    problems += [
        f"deployments: {name!r} stands twice: remove one" for name in _repeated([d.name for d in file.deployments])
    ]
    served = {deployment.model for deployment in file.deployments}
    for section in file.models:
        for name in section.fallbacks:
            problems += _fallback_problems(section.name, name, models, served)
        begins = [price.effective_from for price in freezing.prices(section.price)]
        if len(set(begins)) < len(begins):
            problems.append(f"models.{section.name}.price: two entries have the same effective_from: keep one")
    for deployment in file.deployments:
        if deployment.model not in models:
            problems.append(f"deployments.{deployment.name}.model: {_unknown('model', deployment.model, models)}")
    for tenant_id, tenant in file.tenants.items():
        problems += [f"tenants.{tenant_id}{problem}" for problem in _model_problems(tenant, file.models, served)]
        problems += [f"tenants.{tenant_id}{problem}" for problem in _allowed_problems(tenant, models)]
        problems += [
            f"tenants.{tenant_id}.extra_body_keys: {key!r} belongs to a request field or to us: remove it"
            for key in tenant.extra_body_keys
            if key in OWNED_KEYS
        ]
        problems += [f"tenants.{tenant_id}{problem}" for problem in _dial_problems(tenant)]
        problems += [f"tenants.{tenant_id}{problem}" for problem in _strategy_problems(tenant, file)]
        problems += [f"tenants.{tenant_id}{problem}" for problem in _limit_problems(tenant, file.models)]
        problems += [f"tenants.{tenant_id}.shadow: {problem}" for problem in _shadow_problems(tenant.shadow)]
    problems += scorer_problems(file.scorer)
    problems += auth_problems(file.auth, file.tenants, file.admins)
    return problems


def _named(tenant: TenantSection) -> list[tuple[str, str]]:
    """The models of a tenant's ladder, each with the key that names it."""
    pair = (("strong_model", tenant.strong_model), ("weak_model", tenant.weak_model))
    return [(key, name) for key, name in pair if name is not None] + [("models", name) for name in tenant.models or ()]


def _model_problems(tenant: TenantSection, models: list[ModelSection], served: set[str]) -> Iterator[str]:
    known_as = {model.name: model.scorer_name or model.name for model in models}
    for key, model in _named(tenant):
        if model not in known_as:
            yield f".{key}: {_unknown('model', model, list(known_as))}"
        elif model not in served:
            yield f".{key}: no deployment serves {model!r}: add one"
    pair = (tenant.strong_model, tenant.weak_model)
    if tenant.models is not None:
        if pair != (None, None):
            yield ".models: stands in place of strong_model and weak_model: remove these two, or models"
        for name in _repeated(list(tenant.models)):
            yield f".models: {name!r} stands twice: remove one"
        for name in _repeated([known_as[model] for model in {*tenant.models} & known_as.keys()]):
            yield f".models: two of them are {name!r} to scorers: give each its own scorer_name"
        return
    for key, named in zip(("strong_model", "weak_model"), pair, strict=True):
        if named is None:
            yield f".{key}: missing: add it, or list models"
    if pair[0] is not None and pair[0] == pair[1]:
        yield ".weak_model: same as strong_model: name two models"


def _allowed_problems(tenant: TenantSection, models: list[str]) -> Iterator[str]:
    if tenant.allowed_models is None:
        return
    for name in tenant.allowed_models:
        if name not in models:
            yield f".allowed_models: {_unknown('model', name, models)}"
    for key, name in _named(tenant):
        if name not in tenant.allowed_models:
            yield f".{key}: {name!r} is not among allowed_models: add it there, or name another"


def _dial_problems(tenant: TenantSection) -> Iterator[str]:
    if tenant.strategy is not StrategyName.ROUTE:
        return
    if tenant.alpha is not None and tenant.strong_call_share is not None:
        yield ": set one of strong_call_share and alpha, not both"
    if tenant.alpha is None and tenant.strong_call_share is None and not (tenant.pace and freezing.limits(tenant)):
        yield ": set strong_call_share, alpha, or a limit such as usd_per_day that is paced"


def _strategy_problems(tenant: TenantSection, file: FileSection) -> Iterator[str]:
    keys = ("strong_call_share", "alpha", "shadow")
    return strategy_problems(
        tenant.strategy,
        models=[name for _, name in _named(tenant)],
        cascade=tenant.cascade,
        ensemble=tenant.ensemble,
        routing_keys=[key for key in keys if getattr(tenant, key) is not None],
        embedded=file.scorer.address == EMBEDDED,
    )


def _limit_problems(tenant: TenantSection, models: list[ModelSection]) -> Iterator[str]:
    borrows = tenant.on_exhausted is OnExhausted.BORROW
    if borrows and not tenant.overdraft_usd:
        yield ".overdraft_usd: missing: say how far on_exhausted = 'borrow' may go over a limit"
    if not borrows and tenant.overdraft_usd is not None:
        yield ".overdraft_usd: only for on_exhausted = 'borrow': remove it"
    if not freezing.limits(tenant):
        return
    called = {name for _, name in _named(tenant)}
    called |= {name for model in models if model.name in called for name in model.fallbacks}
    for model in models:
        if model.name in called and model.max_output_tokens is None:
            yield (
                f": has a limit, but models.{model.name}.max_output_tokens is not set, so that a call without "
                "max_tokens has no bound: set it"
            )


def _fallback_problems(model: str, fallback: str, models: list[str], served: set[str]) -> list[str]:
    if fallback not in models:
        return [f"models.{model}.fallbacks: {_unknown('model', fallback, models)}"]
    if fallback == model:
        return [f"models.{model}.fallbacks: {fallback!r} is the model itself: remove it"]
    if fallback not in served:
        return [f"models.{model}.fallbacks: no deployment serves {fallback!r}: add one"]
    return []


def _shadow_problems(section: ShadowSection | None) -> list[str]:
    if section is None:
        return []
    if section.alpha is not None and section.strong_call_share is not None:
        return ["set one of strong_call_share and alpha"]
    if section.alpha is None and section.strong_call_share is None and not section.scorer:
        return ["set strong_call_share, alpha or scorer: it tries nothing"]
    return []


def _unknown(what: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"no such {what} {name!r}: " + (f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}")


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
