"""Budgets and policies through real dispatchers on one ledger: who may do what, and what follows, where and when."""

import asyncio
import os
import re
import signal
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import duration_pb2

from dispatcher_service.api_keys import new_key
from pointsman import cli
from pointsman.dispatcher.v1 import budget_pb2, budget_pb2_grpc, decision_pb2
from pointsman.runtime.status import decode
from tests.dispatchers import STRONG, WEAK, Caller, start_dispatcher
from tests.identities import bearer, key_line
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.processes import ServiceProcess, eventually

NO_SCORER = "127.0.0.1:1"
OWN, OTHER, ADMIN = new_key(), new_key(), new_key()


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAIServer]:
    with openai_server_thread() as server:
        yield server


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("budgets")


@pytest.fixture(scope="module")
def replicas(directory: Path, upstream: OpenAIServer) -> Iterator[tuple[ServiceProcess, ServiceProcess]]:
    with _replica(directory, upstream) as one, _replica(directory, upstream) as other:
        yield one.wait_until_serving(), other.wait_until_serving()


def _replica(directory: Path, upstream: OpenAIServer) -> ServiceProcess:
    return start_dispatcher(
        directory,
        scorer=NO_SCORER,
        upstream=upstream.base_url,
        tenants={
            "default": f"usd_per_day = 50\napi_keys = [{key_line(OWN)}]",
            "fixed": f"api_keys = [{key_line(OTHER)}]",
        },
        more=f"\n[admins.ada]\napi_keys = [{key_line(ADMIN)}]\n",
    )


class Admin:
    """Calls the service with one credential."""

    def __init__(self, process: ServiceProcess, credential: str = ADMIN.text) -> None:
        self._channel = grpc.aio.insecure_channel(process.grpc)
        self._stub = budget_pb2_grpc.BudgetServiceStub(self._channel)
        self._metadata = bearer(credential)

    async def __aenter__(self) -> "Admin":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def call(self, method: str, **fields: Any) -> Any:
        request = getattr(budget_pb2, f"{method}Request")(**fields)
        return await getattr(self._stub, method)(request, metadata=self._metadata, timeout=20)

    async def refused(self, method: str, **fields: Any) -> tuple[grpc.StatusCode, str]:
        """The status of a call that must fail, and the field that it names."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(method, **fields)
        status = decode(caught.value)
        assert status is not None
        return status.code, status.violations[0].field if status.violations else ""

    async def clear(self) -> None:
        """Back to the file."""
        for tenant in ("", "default"):
            await self.call("SetOverride", tenant_id=tenant, reason="the test is over")


@pytest.fixture
async def admin(replicas: tuple[ServiceProcess, ServiceProcess]) -> AsyncIterator[Admin]:
    async with Admin(replicas[0]) as admin:
        yield admin


def _value(policy: budget_pb2.Policy, key: str) -> budget_pb2.PolicyValue:
    return next(value for value in policy.values if value.key == key)


def _seconds(seconds: float) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=int(seconds))


async def test_a_budget_shows_what_was_spent_reserved_and_left(
    replicas: tuple[ServiceProcess, ServiceProcess], admin: Admin
) -> None:
    before = (await admin.call("GetBudget", tenant_id="default")).budget
    async with Caller(replicas[1].grpc, credential=OWN.text) as caller:
        cost = (await caller.complete("hello")).decision.cost_nano_usd
    after = (await admin.call("GetBudget", tenant_id="default")).budget
    assert [window.period for window in after.windows] == [1, 2, 3]
    spent = [[window.spent_nano_usd for window in budget.windows] for budget in (before, after)]
    assert spent[1] == [amount + cost for amount in spent[0]]
    hour, day, _ = after.windows
    assert not hour.HasField("limit_nano_usd")
    assert day.limit_nano_usd == 50 * 10**9
    assert day.left_nano_usd == 50 * 10**9 - day.spent_nano_usd - day.reserved_nano_usd
    assert day.end.seconds - day.start.seconds == 86_400
    assert {(overrun.cause, overrun.count) for overrun in after.overruns} == {
        ("above_reservation", 0),
        ("lowered_limit", 0),
        ("late_settle", 0),
    }


async def test_budgets_are_listed_in_pages(admin: Admin) -> None:
    first = await admin.call("ListBudgets", page_size=3)
    rest = await admin.call("ListBudgets", page_size=200, page_token=first.next_page_token)
    names = [budget.tenant_id for page in (first, rest) for budget in page.budgets]
    assert (len(first.budgets), rest.next_page_token) == (3, "")
    assert names == sorted(names)
    assert {"default", "fixed", "strict", "mismatched"} <= set(names)


async def test_a_tenant_sees_its_own_and_nothing_else_and_changes_nothing(
    replicas: tuple[ServiceProcess, ServiceProcess],
) -> None:
    async with Admin(replicas[0], OWN.text) as own:
        assert (await own.call("GetBudget")).budget.tenant_id == "default"
        assert (await own.call("GetPolicy", tenant_id="default")).policy.tenant_id == "default"
        for method, fields in (
            ("GetBudget", {"tenant_id": "fixed"}),
            ("GetPolicy", {"tenant_id": "fixed"}),
            ("ListBudgets", {}),
            ("SetPolicy", {"tenant_id": "default", "reason": "greed"}),
            ("SetOverride", {"tenant_id": "default", "reason": "greed"}),
        ):
            assert (await own.refused(method, **fields))[0] is grpc.StatusCode.PERMISSION_DENIED, method
    async with Admin(replicas[0], "pk_wrong") as nobody:
        assert (await nobody.refused("GetBudget"))[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_a_policy_shows_where_each_value_comes_from_and_a_change_is_in_force_everywhere(
    replicas: tuple[ServiceProcess, ServiceProcess], admin: Admin
) -> None:
    wanted = budget_pb2.PolicyValues(alpha=0.75, nano_usd_per_day=20 * 10**9, on_scorer_failure="strong")
    policy = (
        await admin.call("SetPolicy", tenant_id="default", set=wanted, reason="a cheaper month", author="Grace")
    ).policy
    values = [_value(policy, key) for key in ("alpha", "usd_per_day", "pace")]
    shown = {value.key: (value.value_json, value.source) for value in values}
    assert shown == {
        "alpha": ("0.75", budget_pb2.VALUE_SOURCE_OVERLAY),
        "usd_per_day": ('"20.00"', budget_pb2.VALUE_SOURCE_OVERLAY),
        "pace": ("true", budget_pb2.VALUE_SOURCE_DEFAULT),
    }
    assert _value(policy, "strong_model").source == budget_pb2.VALUE_SOURCE_FILE
    assert _value(policy, "strong_call_share").value_json == "null"
    assert _value(policy, "alpha").change.author == "ada for Grace"
    assert policy.history[0].reason == "a cheaper month"
    assert "alpha = 0.75" in policy.history[0].summary
    assert not {"api_keys", "certificates"} & {value.key for value in policy.values}
    assert OWN.sha256 not in str(policy)
    one, other = (Caller(process.grpc, credential=OWN.text) for process in replicas)
    async with one as here, other as there:
        assert (await here.complete("hello")).decision.model == STRONG
        async with asyncio.timeout(8):  # 5 s, and what two busy cores add
            while (await there.complete("hello")).decision.model != STRONG:  # noqa: ASYNC110  # nobody to tell us
                await asyncio.sleep(0.1)
    reset = ["alpha", "usd_per_day", "on_scorer_failure"]
    policy = (await admin.call("SetPolicy", tenant_id="default", reset=reset, reason="the test is over")).policy
    assert _value(policy, "strong_call_share").value_json == "0.3"
    assert _value(policy, "usd_per_day").source == budget_pb2.VALUE_SOURCE_FILE


async def test_a_change_that_makes_no_sense_names_its_field(admin: Admin) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    for fields, field in (
        ({"set": budget_pb2.PolicyValues(alpha=1.5)}, "alpha"),
        ({"set": budget_pb2.PolicyValues(nano_usd_per_day=-1)}, "set.nano_usd_per_day"),
        ({"set": budget_pb2.PolicyValues(nano_usd_per_day=2**60)}, "set.nano_usd_per_day"),
        ({"set": budget_pb2.PolicyValues(on_exhausted="shrug")}, "on_exhausted"),
        ({"unset": ["api_keys"]}, "unset"),
        ({"reset": ["bogus"]}, "reset"),
        ({}, "set"),
        ({"set": budget_pb2.PolicyValues(alpha=0.5), "reset": ["alpha"]}, "set"),
    ):
        assert await admin.refused("SetPolicy", tenant_id="default", reason="why", **fields) == (invalid, field)
    assert await admin.refused("SetPolicy", tenant_id="default", set=budget_pb2.PolicyValues(alpha=0.5)) == (
        invalid,
        "reason",
    )
    code, _ = await admin.refused("SetPolicy", tenant_id="x", set=budget_pb2.PolicyValues(alpha=0.5), reason="why")
    assert code is grpc.StatusCode.NOT_FOUND
    weak = budget_pb2.OVERRIDE_KIND_ALL_WEAK
    overrides: tuple[tuple[dict[str, Any], str], ...] = (
        ({"kind": weak}, "lifetime"),
        ({"kind": weak, "lifetime": _seconds(31 * 86_400)}, "lifetime"),
        ({"kind": weak, "lifetime": _seconds(60), "model": STRONG}, "model"),
        ({"kind": budget_pb2.OVERRIDE_KIND_MODEL_OFF, "lifetime": _seconds(60)}, "model"),
        ({"kind": budget_pb2.OVERRIDE_KIND_MODEL_OFF, "lifetime": _seconds(60), "model": "x"}, "model"),
        ({"kind": 77, "lifetime": _seconds(60)}, "kind"),
    )
    for fields, field in overrides:
        assert await admin.refused("SetOverride", tenant_id="default", reason="why", **fields) == (invalid, field)


async def test_overrides_turn_tenants_and_models_and_are_shown_with_their_end(
    replicas: tuple[ServiceProcess, ServiceProcess], admin: Admin
) -> None:
    async with Caller(replicas[0].grpc, credential=OTHER.text) as caller:  # its on_scorer_failure is strong
        assert (await caller.route("hello")).model == STRONG
        policy = (
            await admin.call(
                "SetOverride",
                kind=budget_pb2.OVERRIDE_KIND_ALL_WEAK,
                lifetime=_seconds(3600),
                reason="the strong model costs too much today",
            )
        ).policy
        assert [(each.kind, each.for_everyone) for each in policy.overrides] == [(1, True)]
        assert _gauge(replicas[0], "policy_overrides") == 1
        decision = await caller.route("hello")
        assert (decision.model, decision.reason) == (WEAK, decision_pb2.REASON_OVERRIDE_WEAK)
        shown = (await admin.call("GetPolicy", tenant_id="fixed")).policy
        assert [each.for_everyone for each in shown.overrides] == [True]
        await admin.call(
            "SetOverride",
            tenant_id="fixed",
            kind=budget_pb2.OVERRIDE_KIND_MODEL_OFF,
            model=WEAK,
            lifetime=_seconds(3600),
            reason="it answers nonsense",
        )
        assert (await caller.route("hello")).reason == decision_pb2.REASON_OVERRIDE_STRONG
        await admin.call("SetOverride", tenant_id="fixed", reason="it is well again")
        await admin.call("SetOverride", reason="the month is over")
        assert (await caller.route("hello")).model == STRONG


async def test_the_file_reloads_on_a_signal_without_dropping_a_request_and_a_bad_one_is_refused(
    directory: Path, replicas: tuple[ServiceProcess, ServiceProcess]
) -> None:
    process = replicas[0]
    config = directory / "dispatcher.toml"
    text = await asyncio.to_thread(config.read_text)
    ends: list[str] = []
    done = asyncio.Event()

    async def load(caller: Caller) -> None:
        while not done.is_set():
            ends.append((await caller.complete("hello")).decision.model)

    async with Caller(process.grpc, credential=OWN.text) as caller:
        loops = [asyncio.create_task(load(caller)) for _ in range(4)]
        try:
            before, after = "strong_call_share = 0.3\n", 'strong_call_share = 0.3\non_scorer_failure = "strong"\n'
            changed = text.replace(before, after, 1)
            await asyncio.to_thread(config.write_text, changed)
            os.kill(process.pid, signal.SIGHUP)
            async with asyncio.timeout(20):
                while STRONG not in ends:  # noqa: ASYNC110  # nobody to tell us
                    await asyncio.sleep(0.02)
            await asyncio.to_thread(config.write_text, "nonsense")
            os.kill(process.pid, signal.SIGHUP)
            await asyncio.to_thread(process.wait_for, "the configuration file is refused: the old one stays in force")
            assert _gauge(process) == 1
            counted = len(ends)
            async with asyncio.timeout(20):
                while len(ends) < counted + 8:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert set(ends[-4:]) == {STRONG}, "the last good file is in force"
            await asyncio.to_thread(config.write_text, text)
        finally:
            done.set()
            await asyncio.gather(*loops)  # raises what any request ended with
    for _ in eventually():
        if _gauge(process) == 0:
            break
    async with Caller(process.grpc, credential=OWN.text) as caller:
        assert (await caller.complete("hello")).decision.model == WEAK


async def test_another_scorer_is_taken_over_without_a_restart(
    directory: Path, replicas: tuple[ServiceProcess, ServiceProcess]
) -> None:
    config = directory / "dispatcher.toml"
    text = await asyncio.to_thread(config.read_text)
    async with Caller(replicas[0].grpc, credential=OWN.text) as caller:
        assert not (await caller.route("hello")).HasField("win_probability")
        await asyncio.to_thread(config.write_text, text.replace(NO_SCORER, "embedded"))
        async with asyncio.timeout(30):
            while not (await caller.route("hello")).HasField("win_probability"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await asyncio.to_thread(config.write_text, text)
        async with asyncio.timeout(30):
            while (await caller.route("hello")).HasField("win_probability"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)


def test_the_command_line_shows_and_changes_budgets(
    replicas: tuple[ServiceProcess, ServiceProcess],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("POINTSMAN_CREDENTIAL", ADMIN.text)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["budget", *arguments, "--address", replicas[0].grpc])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    assert run("show", "default")[1].splitlines()[3].split()[:2] == ["default", "day"]
    assert len(run("show")[1].splitlines()) > 12
    code, out, _ = run("set", "default", "usd_per_day=12.50", "strong_call_share=0.2", "--reason", "a cheaper month")
    assert code == 0
    assert re.search(r'^usd_per_day +"12\.50" +overlay +ada$', out, flags=re.MULTILINE)
    assert "ada: strong_call_share = 0.2, usd_per_day = " in out
    code, out, _ = run("override", "weak", "--tenant", "default", "--for", "2h", "--reason", "an incident")
    assert "override for this tenant: all_weak until" in out
    assert run("override", "none", "--tenant", "default", "--reason", "over")[0] == 0
    reset = ["--reset", "usd_per_day", "--reset", "strong_call_share"]
    assert "overlay" not in run("set", "default", *reset, "--reason", "over")[1].partition("ada:")[0]
    for arguments, complaint in (
        (["override", "weak", "--reason", "x"], "--for"),
        (["set", "default", "bogus=1", "--reason", "x"], "bogus cannot be changed"),
        (["set", "default", "usd_per_day=much", "--reason", "x"], "usd_per_day"),
        (["set", "default", "alpha=7", "--reason", "x"], "INVALID_ARGUMENT"),
    ):
        code, _, err = run(*arguments)
        assert code in (1, 2)
        assert complaint in err
    monkeypatch.setenv("POINTSMAN_CREDENTIAL", "nonsense")
    assert "set $POINTSMAN_CREDENTIAL, or --as TENANT" in run("show")[2]


def _gauge(process: ServiceProcess, name: str = "config_refused") -> float:
    with urllib.request.urlopen(f"http://{process.metrics}/metrics", timeout=10) as response:
        for line in response.read().decode().splitlines():
            if line.startswith(f"pointsman_dispatcher_{name} "):
                return float(line.split()[1])
    raise AssertionError("no such gauge")
