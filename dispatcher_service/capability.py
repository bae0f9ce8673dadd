"""Which models can take a request, by what the configuration says of them. Pure."""

from collections.abc import Mapping
from typing import Final

from dispatcher_service.catalogue import LadderModels, Model
from dispatcher_service.chat import Chat, Role
from dispatcher_service.costing import Prompt
from dispatcher_service.errors import InvalidRequest
from dispatcher_service.routing import Ladder, LeftOut


class Needs:
    """What a request asks of a model: worked out once, and then asked of every model of a ladder."""

    def __init__(self, chat: Chat) -> None:
        self.prompt: Final = Prompt.of(chat)
        self._kinds = frozenset([kind for _, kind in self.prompt.parts])
        self._tools = bool(chat.tools) or any(
            message.tool_calls or message.role is Role.TOOL for message in chat.messages
        )

    def left_out(self, ladder: LadderModels) -> dict[int, LeftOut]:
        """Why models of a ladder cannot take the request, by rung; empty if all can."""
        asked, tokens = self.prompt.max_tokens, self.prompt.text_tokens
        roomy = tokens <= ladder.room if asked is None else tokens + asked <= ladder.window
        if roomy and not self._kinds and (ladder.tools or not self._tools):
            return {}
        return {rung: why for rung, model in enumerate(ladder.models) if (why := self.unfit(model)) is not None}

    def unfit(self, model: Model) -> LeftOut | None:
        """Why a model cannot take the request; `None` if it can.

        A kind of part without a bound has no bounded cost either, so that such a model is never called.
        """
        if self._kinds and not self._kinds <= model.part_tokens.keys():
            return LeftOut.MODALITY
        if self._tools and not model.tools:
            return LeftOut.TOOLS
        if model.context_window is not None and self.prompt.context(model) > model.context_window:
            return LeftOut.CONTEXT_WINDOW
        return None

    def unbounded(self, model: Model) -> InvalidRequest | None:
        """The error for a model that must go on and has no bound for a part; `None` if it has all."""
        for path, kind in self.prompt.parts:
            if kind not in model.part_tokens:
                return InvalidRequest(
                    path,
                    f"model {model.name} has no part_tokens.{kind.value}, so that its cost has no bound: send text",
                )
        return None

    def refusal(self, ladder: Ladder, left_out: Mapping[int, LeftOut], models: Mapping[str, Model]) -> InvalidRequest:
        """The error for a request that no model of the ladder can take."""
        if set(left_out.values()) == {LeftOut.MODALITY}:
            # Of several parts, the first that some model lacks: sending text mends them all.
            found = (self.unbounded(models[name]) for name in ladder.models)
            return next(error for error in found if error is not None)
        whys = "; ".join(
            f"{ladder.models[rung]}: {self._why(models[ladder.models[rung]])}" for rung in sorted(left_out)
        )
        return InvalidRequest("chat", f"no model of this tenant can take it ({whys}): send less, or ask for a model")

    def _why(self, model: Model) -> str:
        match self.unfit(model):
            case LeftOut.TOOLS:
                return "it has no tools"
            case LeftOut.CONTEXT_WINDOW:
                tokens = self.prompt.context(model)
                return f"about {tokens} tokens with the answer, and its context_window is {model.context_window}"
            case _:
                lacking = sorted(kind.value for kind in self._kinds - model.part_tokens.keys())
                return f"it has no part_tokens for {', '.join(lacking)}"
