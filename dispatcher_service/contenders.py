"""Which of a tenant's models may answer a request, before any is compared: what they can take, and what is held.

Of the rules that force a model the first that applies wins: a tool loop, an operator's override, a sticky conversation.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dispatcher_service import overrides, routing, stickiness
from dispatcher_service.capability import Needs
from dispatcher_service.catalogue import LadderModels, TenantPolicy
from dispatcher_service.errors import ModelsOff
from dispatcher_service.progress import Progress
from dispatcher_service.routing import Decision, Ladder, LeftOut, Reason
from dispatcher_service.stickiness import Sticky


@dataclass(frozen=True, slots=True)
class Contenders:
    """The models that may answer a request.

    Attributes:
        ladder: the tenant's; in a tool loop with the model that goes on.
        models: of that ladder.
        fitting: the rungs that can take the request and are not turned off, ascending, at least one.
        rungs: those of them that are chosen among.
        forced: the decision, where something other than a threshold has made it.
        left_out: why the other rungs are not chosen among.
    """

    ladder: Ladder
    models: LadderModels
    fitting: tuple[int, ...]
    rungs: tuple[int, ...]
    forced: Decision | None
    left_out: Mapping[int, LeftOut]


def find(policy: TenantPolicy, progress: Progress, needs: Needs) -> Contenders:
    """The contenders for one request.

    Raises:
        InvalidRequest: no model of the tenant can take it.
        ModelsOff: operators have turned off those that can.
    """
    catalogue, held = progress.catalogue, progress.request.held
    off = overrides.models_off(policy.overrides, now=progress.received_at)
    ladder = policy.ladder
    if progress.in_tool_loop:
        if held is not None and held.model in off:
            raise ModelsOff(held.model)  # In a tool loop the model never changes.
        kept = stickiness.kept(held, ladder, catalogue.deployments.keys() - policy.closed(catalogue.models))
        if kept is not None:
            ladder, rung = kept
            unbounded = needs.unbounded(catalogue.models[ladder.models[rung]])
            if unbounded is not None:
                raise unbounded
            looping = routing.forced(ladder, rung, Reason.TOOL_LOOP)
            return Contenders(ladder, catalogue.models_of(ladder), (rung,), (rung,), looping, {})
        held = None  # The model that made the calls is gone: nothing is left to keep.
    models = catalogue.models_of(ladder)
    left_out = needs.left_out(models)
    able = ladder.rungs if not left_out else tuple([rung for rung in ladder.rungs if rung not in left_out])
    if not able:
        raise needs.refusal(ladder, left_out, catalogue.models)
    fitting = tuple([rung for rung in able if ladder.models[rung] not in off]) if off else able
    if not fitting:
        raise ModelsOff(*(ladder.models[rung] for rung in reversed(able)))
    if off:
        left_out |= {rung: LeftOut.TURNED_OFF for rung in able if rung not in fitting}
    forced = overrides.forced(policy.overrides, ladder, fitting=able, on=fitting, now=progress.received_at)
    if forced is not None:
        return Contenders(ladder, models, fitting, fitting, forced, left_out)
    if held is not None and policy.sticky is Sticky.BOTH:
        rung = stickiness.rung_of(held, ladder)
        if rung in fitting:
            forced = routing.forced(ladder, rung, Reason.STICKY_CONVERSATION)
            return Contenders(ladder, models, fitting, (rung,), forced, left_out)
    rungs, lowest = fitting, stickiness.lowest(held, policy.sticky, ladder)
    if lowest:
        rungs = tuple([rung for rung in fitting if rung >= lowest]) or fitting
        left_out |= {rung: LeftOut.STICKY_CONVERSATION for rung in fitting if rung not in rungs}
    if len(rungs) == 1:
        # A conversation may have had a model that cannot take this turn.
        reason = Reason.STICKY_CONVERSATION if 0 < lowest <= rungs[0] else Reason.ONLY_FIT
        forced = routing.forced(ladder, rungs[0], reason)
    return Contenders(ladder, models, fitting, rungs, forced, left_out)
