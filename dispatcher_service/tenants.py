"""The TOML file to frozen values. What this accepts cannot be wrong later: it is parsed, not validated.

Prices are written in USD per million tokens and read as exact decimals, never as floats.
"""

import difflib
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from dispatcher_service.catalogue import (
    Catalogue,
    Deployment,
    FixedAlpha,
    Model,
    OnScorerFailure,
    ScorerTarget,
    StrongCallShare,
    TenantPolicy,
)
from dispatcher_service.chat import OWNED_KEYS, PartKind
from dispatcher_service.pricing import NANO_USD_PER_USD, Price
from dispatcher_service.routing import ModelPair


class ConfigError(Exception):
    """The file cannot be used. `problems` holds one line each: file, line or key, and the mend."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


_Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]
_Usd = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=9)]
_Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Tokens = Annotated[int, Field(ge=1, le=10_000_000)]
_Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Scorer(_Section):
    address: Annotated[str, Field(min_length=1)] = "127.0.0.1:50051"
    timeout: _Seconds = 0.25


class _Price(_Section):
    input: _Usd
    output: _Usd
    cached_input: _Usd | None = None
    cache_write: _Usd | None = None
    reasoning: _Usd | None = None


class _PartTokens(_Section):
    image: _Tokens | None = None
    audio: _Tokens | None = None
    file: _Tokens | None = None


class _Model(_Section):
    name: _Name
    price: _Price
    part_tokens: _PartTokens = _PartTokens()


class _Deployment(_Section):
    name: _Name
    model: _Name
    base_url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    upstream_model: Annotated[str, Field(min_length=1)] | None = None
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    max_tokens_parameter: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    timeout: _Seconds = 120.0
    connect_timeout: _Seconds = 5.0


class _Tenant(_Section):
    strong_model: _Name
    weak_model: _Name
    strong_call_share: _Fraction | None = None
    alpha: _Fraction | None = None
    on_scorer_failure: OnScorerFailure = OnScorerFailure.WEAK
    allow_alpha_override: bool = False
    extra_body_keys: list[Annotated[str, Field(min_length=1)]] = []
    scorer: str = ""


class _File(_Section):
    scorer: _Scorer = _Scorer()
    models: Annotated[list[_Model], Field(min_length=1)]
    deployments: Annotated[list[_Deployment], Field(min_length=1)]
    tenants: Annotated[dict[_Name, _Tenant], Field(min_length=1)]


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
        parsed = _File.model_validate(raw)
    except pydantic.ValidationError as error:
        raise ConfigError([f"{path}: {_describe(problem)}" for problem in error.errors()]) from error
    problems = _inconsistencies(parsed)
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    return _freeze(parsed)


def _inconsistencies(file: _File) -> list[str]:
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
        if (tenant.alpha is None) == (tenant.strong_call_share is None):
            problems.append(f"tenants.{tenant_id}: set exactly one of strong_call_share and alpha")
    return problems


def _freeze(file: _File) -> Catalogue:
    return Catalogue(
        scorer=ScorerTarget(address=file.scorer.address, timeout=file.scorer.timeout),
        models={
            model.name: Model(name=model.name, price=_price(model.price), part_tokens=_part_tokens(model.part_tokens))
            for model in file.models
        },
        deployments={
            deployment.model: Deployment(
                name=deployment.name,
                model=deployment.model,
                base_url=deployment.base_url,
                upstream_model=deployment.upstream_model or deployment.model,
                api_key_env=deployment.api_key_env or "",
                max_tokens_parameter=deployment.max_tokens_parameter,
                timeout=deployment.timeout,
                connect_timeout=deployment.connect_timeout,
            )
            for deployment in file.deployments
        },
        tenants={
            tenant_id: TenantPolicy(
                tenant_id=tenant_id,
                pair=ModelPair(strong=tenant.strong_model, weak=tenant.weak_model),
                dial=_dial(tenant),
                on_scorer_failure=tenant.on_scorer_failure,
                allow_alpha_override=tenant.allow_alpha_override,
                extra_body_keys=frozenset(tenant.extra_body_keys),
                scorer=tenant.scorer,
            )
            for tenant_id, tenant in file.tenants.items()
        },
    )


def _dial(tenant: _Tenant) -> FixedAlpha | StrongCallShare:
    if tenant.alpha is not None:
        return FixedAlpha(tenant.alpha)
    assert tenant.strong_call_share is not None  # _inconsistencies has refused a tenant with neither
    return StrongCallShare(tenant.strong_call_share)


def _part_tokens(bounds: _PartTokens) -> dict[PartKind, int]:
    return {PartKind(kind): bound for kind, bound in bounds if bound is not None}


def _price(price: _Price) -> Price:
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


def _describe(problem: Mapping[str, Any]) -> str:
    """One pydantic error as `key.path: mend`."""
    loc = [str(part) for part in problem["loc"]]
    key = ".".join(loc)
    if problem["type"] == "extra_forbidden":
        known = _keys_beside(loc)
        close = difflib.get_close_matches(loc[-1], known, n=1)
        mend = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"{key}: unknown key: {mend}"
    if problem["type"] == "missing":
        return f"{key}: missing: add it"
    return f"{key}: {problem['msg'][:1].lower()}{problem['msg'][1:]}, not {_shorten(problem['input'])}"


def _keys_beside(loc: list[str]) -> list[str]:
    """The keys that the section at `loc` takes, in the order of its definition."""
    sections: dict[str, type[BaseModel]] = {
        "scorer": _Scorer,
        "models": _Price if "price" in loc else _PartTokens if "part_tokens" in loc else _Model,
        "deployments": _Deployment,
        "tenants": _Tenant,
    }
    section = _File if len(loc) == 1 else sections[loc[0]]
    return list(section.model_fields)


def _unknown(what: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"no such {what} {name!r}: " + (f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}")


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _shorten(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= 60 else text[:60] + "…")
