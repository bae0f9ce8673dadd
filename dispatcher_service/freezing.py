"""From sections of the configuration file, which are known to agree, to the catalogue's frozen values."""

from collections.abc import Sequence
from decimal import Decimal

from dispatcher_service.auth_sections import auth_policy
from dispatcher_service.budget import Limit, Period
from dispatcher_service.catalogue import (
    Catalogue,
    FixedAlpha,
    Model,
    RateLimits,
    Shadow,
    StrongCallShare,
    TenantPolicy,
)
from dispatcher_service.chat import PartKind
from dispatcher_service.pacing_targets import pacing_policy
from dispatcher_service.pricing import NANO_USD_PER_USD, Price
from dispatcher_service.routing import Ladder
from dispatcher_service.scorer_sections import scorer_target
from dispatcher_service.sections import (
    DatedPriceSection,
    FileSection,
    ModelSection,
    PartTokensSection,
    PriceSection,
    ShadowSection,
    TenantSection,
)
from dispatcher_service.strategy_policies import StrategyName
from dispatcher_service.strategy_sections import cascade_policy, ensemble_policy
from dispatcher_service.upstream_sections import freeze_deployments, freeze_retries


def catalogue(file: FileSection) -> Catalogue:
    """The whole file."""
    return Catalogue(
        auth=auth_policy(file.auth, file.tenants, file.admins),
        scorer=scorer_target(file.scorer),
        retries=freeze_retries(file.retries),
        models={section.name: _model(section) for section in file.models},
        deployments=freeze_deployments(file.deployments),
        tenants={tenant_id: policy(tenant_id, section, file.models) for tenant_id, section in file.tenants.items()},
    )


def policy(tenant_id: str, tenant: TenantSection, models: Sequence[ModelSection]) -> TenantPolicy:
    """One tenant's policy. `models` are the file's."""
    held = limits(tenant)
    paced = pacing_policy(
        share=tenant.strong_call_share,
        alpha=tenant.alpha,
        limits=held,
        window_calls=tenant.pacing_window_calls,
        memory_calls=tenant.pacing_memory_calls,
        lease_calls=tenant.pacing_lease_calls,
    )
    return TenantPolicy(
        tenant_id=tenant_id,
        ladder=ladder(tenant, models),
        strategy=tenant.strategy,
        cascade=cascade_policy(tenant.cascade),
        ensemble=ensemble_policy(tenant.ensemble) if tenant.strategy is StrategyName.ENSEMBLE else None,
        dial=_dial(tenant),
        on_scorer_failure=tenant.on_scorer_failure,
        allow_alpha_override=tenant.allow_alpha_override,
        extra_body_keys=frozenset(tenant.extra_body_keys),
        scorer=tenant.scorer,
        limits=held,
        on_exhausted=tenant.on_exhausted,
        overdraft=_nano(tenant.overdraft_usd or Decimal(0)),
        on_ledger_failure=tenant.on_ledger_failure,
        # What the other strategies spend follows from their answers: no alpha holds it, the limits do.
        pacing=paced if tenant.pace and tenant.strategy is StrategyName.ROUTE else None,
        fallback_to_other_tier=tenant.fallback_to_other_tier,
        objective=tenant.objective,
        sticky=tenant.sticky,
        conversation_ttl=tenant.conversation_ttl,
        log_text=tenant.log_text,
        text_ttl=tenant.text_ttl,
        shadow=_shadow(tenant.shadow),
        idempotency_retention=tenant.idempotency_retention,
        allowed_models=None if tenant.allowed_models is None else frozenset(tenant.allowed_models),
        rates=RateLimits(
            requests_per_minute=tenant.requests_per_minute,
            tokens_per_minute=tenant.tokens_per_minute,
            max_concurrent_requests=tenant.max_concurrent_requests,
        ),
    )


def ladder(tenant: TenantSection, models: Sequence[ModelSection]) -> Ladder:
    """A tenant's models, cheapest first: a pair as it is named, more by price and then by name.

    The price compared is three times that of input plus that of output, about as chats use them, of the latest entry:
    so the order is the same at all times, and a new price changes it when it is written into the file.
    """
    by_name = {model.name: model for model in models}

    def order(name: str) -> tuple[int, str]:
        latest = prices(by_name[name].price)[-1]
        return 3 * latest.input + latest.output, name

    if tenant.models is not None:
        names = tuple(sorted(tenant.models, key=order))
    else:
        names = tuple(name for name in (tenant.weak_model, tenant.strong_model) if name is not None)
    known_as = tuple(by_name[name].scorer_name or name for name in names)
    return Ladder(names, known_as)


def limits(tenant: TenantSection) -> tuple[Limit, ...]:
    """A tenant's limits, in the order of `Period`."""
    amounts = {
        Period.HOUR: tenant.usd_per_hour,
        Period.DAY: tenant.usd_per_day,
        Period.MONTH: tenant.usd_per_month,
    }
    return tuple(Limit(period, _nano(amount)) for period, amount in amounts.items() if amount is not None)


def _model(section: ModelSection) -> Model:
    return Model(
        name=section.name,
        prices=prices(section.price),
        part_tokens=_part_tokens(section.part_tokens),
        max_output_tokens=section.max_output_tokens,
        prompt_overhead_tokens=section.prompt_overhead_tokens,
        context_window=section.context_window,
        tools=section.tools,
        fallbacks=section.fallbacks,
        on_disconnect=section.on_disconnect,
        drain_timeout=section.drain_timeout,
    )


def _dial(tenant: TenantSection) -> FixedAlpha | StrongCallShare | None:
    if tenant.alpha is not None:
        return FixedAlpha(tenant.alpha)
    return None if tenant.strong_call_share is None else StrongCallShare(tenant.strong_call_share)


def _shadow(section: ShadowSection | None) -> Shadow | None:
    if section is None:
        return None
    share = None if section.strong_call_share is None else StrongCallShare(section.strong_call_share)
    return Shadow(dial=share if section.alpha is None else FixedAlpha(section.alpha), scorer=section.scorer)


def _part_tokens(bounds: PartTokensSection) -> dict[PartKind, int]:
    return {PartKind(kind): bound for kind, bound in bounds if bound is not None}


def prices(section: PriceSection | list[DatedPriceSection]) -> tuple[Price, ...]:
    """A model's prices, ascending by the moment from which they hold."""
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
