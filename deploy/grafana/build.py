"""Writes the three dashboards: `python deploy/grafana/build.py [FOLDER]`; a test compares them with the committed ones."""

import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

sys.path.insert(0, str(Path(__file__).parent))

from panels import Panel, dashboard

DISPATCHER = "pointsman_dispatcher_"
TENANT = 'tenant=~"$tenant"'
PERIODS = 'period=~"hour|day|month"'


def rate(metric: str, by: str, labels: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantiles(metric: str, by: str = "", labels: str = "") -> list[tuple[str, str]]:
    """Median and 99th percentile of a histogram, by one more label where `by` names it."""
    label = f"{{{{{by}}}}} " if by else ""
    groups = f"le, {by}" if by else "le"
    return [
        (
            f"histogram_quantile({q}, sum by ({groups}) (rate({metric}_bucket{{{labels}}}[$__rate_interval])))",
            f"{label}p{int(q * 100)}",
        )
        for q in (0.5, 0.99)
    ]


def spend(labels: str) -> list[Panel]:
    """What the owner of a budget looks at; `labels` choose tenants."""
    strong = f"{DISPATCHER}strong_call_equivalents_total{{{labels}}}"
    every = f"{DISPATCHER}decisions_total{{{labels}}}"
    return [
        Panel(
            title="Spend against budget",
            description="Spent part of each limit in its current window (UTC). At 100 % calls go weak or are refused, as "
            "the tenant's on_exhausted says.",
            unit="percentunit",
            kind="bars",
            maximum=1,
            thresholds=(0.8, 1.0),
            queries=[
                (
                    f"max by (tenant, period) ({DISPATCHER}budget_spent_usd{{{labels}}}) "
                    f"/ (max by (tenant, period) ({DISPATCHER}budget_limit_usd{{{labels}, {PERIODS}}}) > 0)",
                    "{{tenant}} per {{period}}",
                )
            ],
        ),
        Panel(
            title="Share of strong calls",
            description="The routing rate, beside the share that the tenant wants (dashed names end in 'target'). A model "
            "between the cheapest and the strongest counts by its cost.",
            unit="percentunit",
            maximum=1,
            queries=[
                (
                    f"sum by (tenant) (rate({strong}[$__rate_interval])) / "
                    f"(sum by (tenant) (rate({every}[$__rate_interval])) > 0)",
                    "{{tenant}}",
                ),
                (f"max by (tenant) ({DISPATCHER}strong_call_share_target{{{labels}}})", "{{tenant}} target"),
            ],
        ),
        Panel(
            title="Calls by model",
            description="Decisions by the chosen model.",
            unit="reqps",
            kind="stacked",
            queries=[(rate(DISPATCHER + "model_decisions_total", "model", labels), "{{model}}")],
        ),
        Panel(
            title="α over time",
            description="The effective cost threshold. It rises when a tenant has sent more strong than its share or its "
            "budget allows, and falls again.",
            unit="short",
            queries=[(f"max by (tenant) ({DISPATCHER}alpha{{{labels}}})", "{{tenant}}")],
        ),
        Panel(
            title="Cost per hour",
            description="Dollars an hour by model, as billed by upstreams (estimated where they report no usage).",
            unit="currencyUSD",
            kind="stacked",
            queries=[(f"3600 * {rate(DISPATCHER + 'cost_usd_total', 'model', labels)}", "{{model}}")],
        ),
        Panel(
            title="Saved per hour",
            description="What the same tokens would have cost at the strong model, less what they cost.",
            unit="currencyUSD",
            queries=[
                (
                    f"3600 * ({rate(DISPATCHER + 'all_strong_cost_usd_total', 'tenant', labels)} "
                    f"- {rate(DISPATCHER + 'cost_usd_total', 'tenant', labels)})",
                    "{{tenant}}",
                )
            ],
        ),
        Panel(
            title="Burn rate",
            description="1 spends exactly the limit in its window. Alerts page above 6 and file a ticket above 1.5.",
            unit="short",
            thresholds=(1.5, 6),
            queries=[
                (f"tenant_period:pointsman_budget_burn:rate1h{{{labels}}}", "{{tenant}} per {{period}}"),
            ],
        ),
    ]


ROUTING_AND_COST = dashboard(
    uid="pointsman-routing-cost",
    title="Pointsman / Routing and cost",
    description="For the owner: who sends how much where, what it costs, and what routing saves.",
    tenant="many",
    rows=[
        (
            "In the chosen time",
            [
                Panel(
                    title="Cost",
                    description="Cost of all upstream calls in the chosen time.",
                    unit="currencyUSD",
                    kind="stat",
                    span=6,
                    queries=[(f"sum(increase({DISPATCHER}cost_usd_total{{{TENANT}}}[$__range]))", "cost")],
                ),
                Panel(
                    title="Saved against all-strong",
                    description="What the same tokens would have cost at the strong model, less what they cost.",
                    unit="currencyUSD",
                    kind="stat",
                    span=6,
                    queries=[
                        (
                            f"sum(increase({DISPATCHER}all_strong_cost_usd_total{{{TENANT}}}[$__range])) "
                            f"- sum(increase({DISPATCHER}cost_usd_total{{{TENANT}}}[$__range]))",
                            "saved",
                        )
                    ],
                ),
                Panel(
                    title="Saved, as a part",
                    description="Savings as a part of the all-strong cost.",
                    unit="percentunit",
                    kind="stat",
                    span=6,
                    queries=[
                        (
                            f"1 - sum(increase({DISPATCHER}cost_usd_total{{{TENANT}}}[$__range])) "
                            f"/ (sum(increase({DISPATCHER}all_strong_cost_usd_total{{{TENANT}}}[$__range])) > 0)",
                            "saved",
                        )
                    ],
                ),
                Panel(
                    title="Calls",
                    description="Requests that were decided in the chosen time.",
                    unit="short",
                    kind="stat",
                    span=6,
                    queries=[(f"sum(increase({DISPATCHER}decisions_total{{{TENANT}}}[$__range]))", "calls")],
                ),
            ],
        ),
        ("Budget and routing", spend(TENANT)),
        (
            "Cascades and ensembles",
            [
                Panel(
                    title="What became of the models asked",
                    description="Models of cascades and ensembles, of all tenants. Rejected answers cost "
                    "a second call each: lower thresholds, or a hard_alpha.",
                    unit="reqps",
                    kind="stacked",
                    queries=[(rate(DISPATCHER + "stages_total", "strategy, result"), "{{strategy}} {{result}}")],
                ),
                Panel(
                    title="Acceptance probability",
                    description="Of the answers that cascades had scored, of all tenants; thresholds stand in the configuration.",
                    unit="percentunit",
                    maximum=1,
                    queries=quantiles(DISPATCHER + "acceptance_probability"),
                ),
                Panel(
                    title="Waiting for verdicts and rankings",
                    description="By result. Each stage of a cascade but the last waits for one.",
                    unit="s",
                    queries=quantiles(DISPATCHER + "scorer_seconds", "result", 'scorer="answers"'),
                ),
            ],
        ),
        (
            "Why",
            [
                Panel(
                    title="Reasons of decisions",
                    description="at_or_above_alpha and below_alpha are free decisions; all others are forced and cannot be "
                    "paced back in full. For all tenants: reasons have no tenant label.",
                    unit="reqps",
                    kind="stacked",
                    span=12,
                    queries=[(rate(DISPATCHER + "decision_reasons_total", "reason"), "{{reason}}")],
                ),
                Panel(
                    title="Win probabilities",
                    description="P10, median and P90 of what the scorer predicts. A level that moves means other prompts.",
                    unit="percentunit",
                    span=12,
                    queries=[
                        (
                            f"histogram_quantile({q}, sum by (le) (rate({DISPATCHER}win_probability_bucket[$__rate_interval])))",
                            f"p{int(q * 100)}",
                        )
                        for q in (0.1, 0.5, 0.9)
                    ],
                ),
            ],
        ),
    ],
)

SERVICE_HEALTH = dashboard(
    uid="pointsman-service-health",
    title="Pointsman / Service health",
    description="For on-call: traffic, errors, latency and saturation of both services, and where the time goes.",
    rows=[
        (
            "Dispatcher",
            [
                Panel(
                    title="Calls",
                    description="Calls by method and status.",
                    unit="reqps",
                    kind="stacked",
                    queries=[(rate(DISPATCHER + "requests_total", "method, status"), "{{method}} {{status}}")],
                ),
                Panel(
                    title="Errors by reason",
                    description="UPSTREAM_… is a provider, LEDGER_UNAVAILABLE the money book, SCORER_UNAVAILABLE the scorers, "
                    "INTERNAL our own fault.",
                    unit="reqps",
                    kind="stacked",
                    queries=[(rate(DISPATCHER + "errors_total", "reason") + " > 0", "{{reason}}")],
                ),
                Panel(
                    title="Calls in flight",
                    description="Calls being answered: the saturation of a service that mostly waits.",
                    unit="short",
                    kind="stacked",
                    queries=[(f"sum by (method) ({DISPATCHER}requests_in_flight)", "{{method}}")],
                ),
            ],
        ),
        (
            "Where the time goes",
            [
                Panel(
                    title="Our overhead",
                    description="Total less upstream. Of a stream it holds the time in which the caller read. Without ensembles.",
                    unit="s",
                    queries=quantiles(DISPATCHER + "overhead_seconds", "method"),
                ),
                Panel(
                    title="Waiting for the scorer",
                    description="By result; a breaker that is open answers at once.",
                    unit="s",
                    queries=quantiles(DISPATCHER + "scorer_seconds", "result", 'scorer!="answers"'),
                ),
                Panel(
                    title="Waiting for the ledger",
                    description="Steps of the money book. Every attempt reserves and settles.",
                    unit="s",
                    queries=quantiles(DISPATCHER + "ledger_seconds", "step"),
                ),
                Panel(
                    title="Waiting for upstreams",
                    description="Whole calls, by model.",
                    unit="s",
                    queries=quantiles(DISPATCHER + "upstream_seconds", "model"),
                ),
                Panel(
                    title="Time to first token",
                    description="Upstream call to first content, of streamed answers.",
                    unit="s",
                    queries=quantiles(DISPATCHER + "time_to_first_token_seconds", "model"),
                ),
                Panel(
                    title="Ledger errors and overruns",
                    description="Failed steps a second, and how often limits were passed since the ledger began.",
                    unit="short",
                    queries=[
                        (rate(DISPATCHER + "ledger_errors_total", "step"), "errors of {{step}}"),
                        (f"max by (cause) ({DISPATCHER}ledger_overruns)", "overruns: {{cause}}"),
                    ],
                ),
            ],
        ),
        (
            "Upstreams",
            [
                Panel(
                    title="Attempts",
                    description="Turns of a deployment by how they ended. `skipped`: its breaker was open or it had no room.",
                    unit="reqps",
                    kind="stacked",
                    span=12,
                    queries=[
                        (
                            rate(DISPATCHER + "attempts_total", "deployment, result") + " > 0",
                            "{{deployment}} {{result}}",
                        )
                    ],
                ),
                Panel(
                    title="Breakers",
                    description="0: closed, calls pass; 1: half open; 2: open, the deployment is left alone.",
                    unit="short",
                    maximum=2,
                    span=6,
                    queries=[(f"max by (deployment) ({DISPATCHER}breaker_state)", "{{deployment}}")],
                ),
                Panel(
                    title="Answers without usage",
                    description="Billed at an estimate: the report will not match the invoice exactly.",
                    unit="reqps",
                    span=6,
                    queries=[(rate(DISPATCHER + "usage_missing_total", "model"), "{{model}}")],
                ),
            ],
        ),
        (
            "Scorer",
            [
                Panel(
                    title="Predictions",
                    description="Conversations scored a second, by scorer.",
                    unit="reqps",
                    span=6,
                    queries=[(rate("pointsman_scorer_scored_total", "scorer"), "{{scorer}}")],
                ),
                Panel(
                    title="Queue and inference",
                    description="A long queue wants more replicas, slow inference a smaller artefact or faster cores.",
                    unit="s",
                    span=6,
                    queries=[
                        (expression, f"{name} {legend}")
                        for name, metric in (("queue", "queue"), ("inference", "inference"), ("tokens", "tokenization"))
                        for expression, legend in quantiles(f"pointsman_scorer_{metric}_seconds")
                    ],
                ),
                Panel(
                    title="Waiting conversations",
                    description="In all queues. Full ones refuse with RESOURCE_EXHAUSTED.",
                    unit="short",
                    span=6,
                    queries=[("sum by (scorer) (pointsman_scorer_queue_conversations)", "{{scorer}}")],
                ),
                Panel(
                    title="Drift (population stability index)",
                    description="Of win probabilities against the artefact's reference prompts: below 0.1 stable, above 0.25 "
                    "another population.",
                    unit="short",
                    span=6,
                    thresholds=(0.1, 0.25),
                    queries=[("scorer:pointsman_win_probability_psi:rate1h", "{{scorer}}")],
                ),
            ],
        ),
    ],
)

TENANT_VIEW = dashboard(
    uid="pointsman-tenant",
    title="Pointsman / Tenant",
    description="One tenant's view of its routing, cost and budget.",
    tenant="one",
    rows=[
        ("Budget and routing", spend('tenant="$tenant"')),
        (
            "Limits",
            [
                Panel(
                    title="Spent and reserved in this window",
                    description="The ledger's account. Reserved is the worst case of calls in flight.",
                    unit="currencyUSD",
                    span=12,
                    queries=[
                        (f'max by (period) ({DISPATCHER}budget_spent_usd{{tenant="$tenant"}})', "spent per {{period}}"),
                        (
                            f'max by (period) ({DISPATCHER}budget_reserved_usd{{tenant="$tenant"}})',
                            "reserved per {{period}}",
                        ),
                        (f'max by (period) ({DISPATCHER}budget_limit_usd{{tenant="$tenant"}})', "limit per {{period}}"),
                    ],
                ),
                Panel(
                    title="Reservations that did not fit",
                    description="Each was answered by the weak model or refused, as on_exhausted says.",
                    unit="reqps",
                    span=12,
                    queries=[
                        (rate(DISPATCHER + "budget_refusals_total", "period", 'tenant="$tenant"'), "per {{period}}")
                    ],
                ),
            ],
        ),
    ],
)


def main(folder: Path) -> None:
    """Write one file per dashboard."""
    for name, board in (
        ("routing-and-cost", ROUTING_AND_COST),
        ("service-health", SERVICE_HEALTH),
        ("tenant", TENANT_VIEW),
    ):
        text = JSONEncoder(sort_keys=True, indent=1, ensure_ascii=False).encode(board)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "dashboards")
