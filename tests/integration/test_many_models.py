"""Three models behind a real dispatcher, and a real scorer of many models that was trained on battles of theirs."""

import asyncio
from collections.abc import Iterator

import pytest

from dispatcher_service import chat as chats
from dispatcher_service.chat import Chat, Text
from dispatcher_service.embedded_scorer import open_embedded
from dispatcher_service.routing import ModelPair
from pointsman.client import Decision, DispatcherClient, LeftOut, Reason, Tier
from pointsman.dispatcher.v1 import chat_pb2
from scorer_service.preprocess import Role as ScoredRole
from scorer_service.preprocess import Turn
from scorer_service.scorer import ConversationScorer, open_scorer
from tests import battles
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.processes import DISPATCHER_PORTS, SCORER_PORTS, ServiceProcess
from tests.scrapes import scrape

PROMPTS = (
    "Explain glaciers to a child of 7 years.",
    "Prove that 12 owls cannot all be different.",
    "Write 9 lines of Python that count tariffs.",
    "What is wrong with this sentence about poems: 'Them was 3 of it.'?",
    "How many violins fit into 40 wagons? Show your work.",
)

MODEL = """
[[models]]
name = "{name}"
scorer_name = "{known_as}"
price = {{ input = {price}, output = {price} }}
max_output_tokens = 1000
{more}

[[deployments]]
name = "{name}-1"
model = "{name}"
base_url = "{upstream}"
"""

TENANTS = """
[tenants.many]
models = ["big", "small", "medium"]
alpha = 0.55
pace = false
allow_alpha_override = true

[tenants.useful]
models = ["big", "small", "medium"]
objective = "utility"
alpha = 0.55
pace = false
allow_alpha_override = true

[tenants.paced]
models = ["big", "small", "medium"]
strong_call_share = 0.4
pacing_window_calls = 50

[tenants.strange]
models = ["big", "small", "medium", "unheard-of"]
alpha = 0.55
pace = false
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ConversationScorer:
    directory = tmp_path_factory.mktemp("artefact") / "mf"
    battles.trained(directory)
    return open_scorer(directory, threads=1)


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAIServer]:
    with openai_server_thread() as server:
        yield server


@pytest.fixture(scope="module")
def dispatcher(
    trained: ConversationScorer, upstream: OpenAIServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    names = known_as(trained)
    folder = tmp_path_factory.mktemp("dispatcher")
    artifacts = f"many={trained.artifact.directory}"
    with ServiceProcess("scorer_service", env={**SCORER_PORTS, "SCORER_ARTIFACTS": artifacts}) as scorer:
        models = "".join(
            MODEL.format(name=name, known_as=names.get(name, name), price=price, more=more, upstream=upstream.base_url)
            for name, price, more in (
                ("small", 0.1, "context_window = 4000"),
                ("medium", 1, "tools = false"),
                ("big", 10, "part_tokens = { image = 1000 }"),
                ("unheard-of", 3, ""),
            )
        )
        config = folder / "dispatcher.toml"
        config.write_text(f'[scorer]\naddress = "{scorer.grpc}"\ntimeout = 2.0\n{models}{TENANTS}')
        settings = {**DISPATCHER_PORTS, "DISPATCHER_CONFIG": str(config)}
        with ServiceProcess("dispatcher_service", env=settings) as process:
            yield process.wait_until_serving()


def known_as(trained: ConversationScorer) -> dict[str, str]:
    """The scorer's names of our three: none is the strongest or the weakest that it knows."""
    ranked = trained.manifest.models
    return {"small": ranked[10], "medium": ranked[5], "big": ranked[1]}


def client(dispatcher: ServiceProcess, tenant: str) -> DispatcherClient:
    return DispatcherClient(dispatcher.grpc, tenant=tenant)


def odds(trained: ConversationScorer, prompt: str) -> dict[str, float]:
    """P(the strongest is better) of each of the three, straight from the artefact."""
    passage = trained.preprocessor.passage([Turn(ScoredRole.USER, prompt)])
    names = known_as(trained)
    by_model = trained.score([passage], [(names["big"], names["small"])]).scores.model_win_probabilities
    assert by_model is not None
    found = dict(zip(trained.manifest.models, (1 - by_model[0]).tolist(), strict=True))
    return {model: found[name] for model, name in names.items()}


def compared(decision: Decision) -> dict[str, float]:
    return {
        each.model: each.beaten_by_strongest for each in decision.candidates if each.beaten_by_strongest is not None
    }


async def test_the_cheapest_model_below_alpha_answers_and_the_decision_shows_every_models_odds(
    dispatcher: ServiceProcess, trained: ConversationScorer, upstream: OpenAIServer
) -> None:
    went = set()
    async with client(dispatcher, "many") as caller:
        for prompt in PROMPTS:
            expected = odds(trained, prompt)
            assert expected["big"] == pytest.approx(0.5, abs=1e-6)
            for alpha in (0.0, expected["medium"] + 1e-6, expected["small"] + 1e-6, 1.0):
                answer = await caller.complete(prompt, alpha=alpha)
                below = [name for name in ("small", "medium") if expected[name] < alpha]
                wanted = below[0] if below else "big"
                assert answer.decision.model == wanted
                assert answer.content == f"{wanted} says: {prompt}"
                assert compared(answer.decision) == pytest.approx(expected, abs=1e-6)
                assert answer.decision.win_probability == pytest.approx(expected["small"], abs=1e-6)
                assert answer.decision.reason is (Reason.BELOW_ALPHA if below else Reason.AT_OR_ABOVE_ALPHA)
                went.add(answer.decision.tier)
    assert went == {Tier.WEAK, Tier.MIDDLE, Tier.STRONG}
    assert upstream.bodies[-1]["model"] == "small"
    by_model = {
        labels["model"]: value for labels, value in scrape(dispatcher, "pointsman_dispatcher_model_decisions_total")
    }
    assert sum(by_model.values()) == 4 * len(PROMPTS)
    assert by_model.keys() == {"small", "medium", "big"}


async def test_utility_takes_the_best_of_quality_less_cost(
    dispatcher: ServiceProcess, trained: ConversationScorer
) -> None:
    async with client(dispatcher, "useful") as caller:
        for prompt in PROMPTS:
            expected = odds(trained, prompt)
            # Prices are .1, 1 and 10 a token alike: x is 0, .9/9.9 and 1.
            worth = {name: 1 - expected[name] - 0.05 * x for name, x in (("small", 0), ("medium", 1 / 11), ("big", 1))}
            decision = (await caller.complete(prompt)).decision
            assert (decision.model, decision.reason) == (max(worth, key=worth.__getitem__), Reason.BEST_UTILITY)


async def test_models_that_do_not_fit_are_left_out_and_the_explanation_says_so(dispatcher: ServiceProcess) -> None:
    tools = chat_pb2.Chat(
        messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text="x " * 7_000)])],
        tools=[chat_pb2.Tool(name="f")],
    )
    async with client(dispatcher, "many") as caller:
        answer = await caller.complete(tools)
        decision = answer.decision
        assert (decision.model, decision.tier, decision.reason) == ("big", Tier.STRONG, Reason.ONLY_FIT)
        assert {each.model: each.left_out for each in decision.candidates} == {
            "small": LeftOut.CONTEXT_WINDOW,
            "medium": LeftOut.TOOLS,
            "big": None,
        }
        explained = await caller.get_decision(answer.request_id)
        assert "It went strong, to big: no other model of the tenant could take the request." in explained.text
        assert "medium was left out: the request has tools, and it calls none." in explained.text


async def test_a_share_is_held_in_parts_of_the_way_to_the_strongest(dispatcher: ServiceProcess) -> None:
    async with client(dispatcher, "paced") as caller:
        for call in range(300):
            await caller.complete(PROMPTS[call % len(PROMPTS)])
    found = scrape(dispatcher, "pointsman_dispatcher_strong_call_equivalents_total")
    (x,) = (value for labels, value in found if labels["tenant"] == "paced")
    # η = 5/50 bounds the miss by 11 calls, and a lease by 32 more.
    assert x / 300 == pytest.approx(0.4, abs=43 / 300)


async def test_a_model_that_the_scorer_does_not_know_is_never_chosen_freely_and_is_told_of(
    dispatcher: ServiceProcess,
) -> None:
    async with client(dispatcher, "strange") as caller:
        decision = (await caller.complete(PROMPTS[0])).decision
    assert {each.model: each.left_out for each in decision.candidates}["unheard-of"] is LeftOut.NOT_SCORED
    found = scrape(dispatcher, "pointsman_dispatcher_models_not_compared")
    assert {labels["tenant"]: value for labels, value in found}["strange"] == 1
    assert any("does not compare all" in line for line in dispatcher.stderr)


async def test_an_embedded_scorer_gives_the_same_odds(trained: ConversationScorer) -> None:
    embedded = await asyncio.to_thread(open_embedded, str(trained.artifact.directory))
    names = known_as(trained)
    pair = ModelPair(strong=names["big"], weak=names["small"])
    chat = Chat(messages=(chats.Message(chats.Role.USER, (Text(PROMPTS[0]),)),), text_bytes=40)
    found = await embedded.predict(chat, pair=pair, every_model=True, scorer="", timeout=10)
    assert {model: found.beaten[name] for model, name in names.items()} == pytest.approx(odds(trained, PROMPTS[0]))
    assert found.win_probability == pytest.approx(found.beaten[names["small"]], abs=1e-6)
    plain = await embedded.predict(chat, pair=pair, every_model=False, scorer="", timeout=10)
    assert not plain.beaten
    await embedded.close()
