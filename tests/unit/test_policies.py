"""The configuration of this moment: a file that is read again, overlays that replicas share, and the trail."""

import asyncio
from pathlib import Path

import pytest

from dispatcher_service import overlay, policies
from dispatcher_service.budget import Limit, Period
from dispatcher_service.catalogue import Catalogue, FixedAlpha, StrongCallShare
from dispatcher_service.errors import InvalidRequest, LedgerUnavailable, NotFound
from dispatcher_service.ledger.contract import Document
from dispatcher_service.ledger.memory import MemoryLedger
from dispatcher_service.overlay import EVERYONE, Change, Overlay
from dispatcher_service.overrides import Override, OverrideKind
from dispatcher_service.policies import Policies
from dispatcher_service.tenants import ConfigError

FILE = """
[[models]]
name = "big"
price = { input = 10, output = 30 }
max_output_tokens = 1000

[[models]]
name = "small"
price = { input = 1, output = 3 }
max_output_tokens = 1000

[[deployments]]
name = "big-1"
model = "big"
base_url = "http://127.0.0.1:1/v1"

[[deployments]]
name = "small-1"
model = "small"
base_url = "http://127.0.0.1:1/v1"

[tenants.acme]
strong_model = "big"
weak_model = "small"
strong_call_share = 0.3

[tenants.zeta]
strong_model = "big"
weak_model = "small"
alpha = 0.6
"""


class Seen:
    """What metrics were told."""

    def __init__(self) -> None:
        self.loads: list[bool] = []
        self.overlays = (0, 0)

    def config_loaded(self, *, good: bool) -> None:
        self.loads.append(good)

    def overlays_in_force(self, *, applied: int, ignored: int) -> None:
        self.overlays = applied, ignored


class Replica:
    """Policies over a file and documents that others may share."""

    def __init__(self, path: Path, ledger: MemoryLedger) -> None:
        self.seen = Seen()
        self.policies = Policies(path, documents=ledger, observe=self.seen, wall_clock=lambda: 1e9)

    def dial(self, tenant: str = "acme") -> object:
        return self.policies.catalogue().tenants[tenant].dial

    async def set(self, tenant: str = "acme", **values: overlay.Json) -> None:
        def make(before: Overlay, change: Change) -> Overlay:
            return overlay.with_values(before, values, unset=(), reset=(), change=change)

        await self.policies.change(tenant, make, author="ada", reason="a test")

    async def override(self, tenant: str, kind: OverrideKind) -> None:
        def make(before: Overlay, change: Change) -> Overlay:
            return overlay.with_override(before, Override(kind, "", 2e9), change=change)

        await self.policies.change(tenant, make, author="ada", reason="an incident")


def _write(path: Path, text: str | None) -> None:
    """`None` takes the file away."""
    if text is None:
        path.unlink()
    else:
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "dispatcher.toml"
    file.write_text(FILE, encoding="utf-8")
    return file


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger(lambda: 1e9)


async def test_a_changed_file_is_in_force_after_a_reload(path: Path, ledger: MemoryLedger) -> None:
    replica = Replica(path, ledger)
    before = replica.policies.catalogue()
    _write(path, FILE.replace("0.3", "0.5"))
    assert await replica.policies.reload()
    assert replica.dial() == StrongCallShare(0.5)
    assert before.tenants["acme"].dial == StrongCallShare(0.3), "a request in flight keeps what it began with"


@pytest.mark.parametrize(
    "text", ["nonsense", FILE.replace("0.3", "3"), FILE.replace('model = "big"', 'model = "bog"'), None]
)
async def test_a_bad_file_is_refused_and_the_old_one_stays(path: Path, ledger: MemoryLedger, text: str | None) -> None:
    replica = Replica(path, ledger)
    before = replica.policies.catalogue()
    _write(path, text)
    assert not await replica.policies.reload()
    assert replica.policies.catalogue() is before
    assert replica.seen.loads == [True, False]
    _write(path, FILE)
    assert await replica.policies.reload()
    assert replica.seen.loads[-1]


async def test_a_file_that_cannot_be_served_is_refused_too(path: Path, ledger: MemoryLedger) -> None:
    replica = Replica(path, ledger)

    async def accept(found: Catalogue) -> None:
        if found.tenants["acme"].dial == StrongCallShare(0.5):
            raise ConfigError(["deployment big-1: environment variable KEY is not set: set it"])

    replica.policies.accept_by(accept)
    _write(path, FILE.replace("0.3", "0.5"))
    assert not await replica.policies.reload()
    assert replica.dial() == StrongCallShare(0.3)


async def test_a_file_that_changes_is_noticed_without_a_signal(
    path: Path, ledger: MemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "FILE_SECONDS", 0.01)
    replica = Replica(path, ledger)
    await replica.policies.start()
    swapped = path.with_suffix(".new")
    _write(swapped, FILE.replace("0.3", "0.5"))
    swapped.rename(path)  # as a mounted file is swapped
    async with asyncio.timeout(10):
        while replica.dial() != StrongCallShare(0.5):  # noqa: ASYNC110  # nobody to tell us
            await asyncio.sleep(0.01)
    await replica.policies.close()


async def test_a_change_is_in_force_at_once_here_and_after_a_look_elsewhere(path: Path, ledger: MemoryLedger) -> None:
    here, there = Replica(path, ledger), Replica(path, ledger)
    await here.set(alpha=0.7, usd_per_day="2.5")
    assert here.dial() == FixedAlpha(0.7)
    assert here.policies.catalogue().tenants["acme"].limits == (Limit(Period.DAY, 2_500_000_000),)
    assert there.dial() == StrongCallShare(0.3)
    await there.policies.refresh()
    assert there.dial() == FixedAlpha(0.7)
    fresh = Replica(path, ledger)
    await fresh.policies.start()
    assert fresh.dial() == FixedAlpha(0.7)
    await fresh.policies.close()
    assert fresh.seen.overlays == (1, 0)


async def test_a_change_that_does_not_fit_is_refused_by_its_key_and_leaves_no_trace(
    path: Path, ledger: MemoryLedger
) -> None:
    replica = Replica(path, ledger)
    with pytest.raises(InvalidRequest) as caught:
        await replica.set(strong_call_share=1.5)
    assert caught.value.field == "strong_call_share"
    with pytest.raises(InvalidRequest) as caught:
        await replica.set(on_exhausted="borrow")
    assert caught.value.field == "overdraft_usd"
    with pytest.raises(NotFound):
        await replica.set("nobody", alpha=0.5)
    assert await replica.policies.trail("acme") == []
    assert await ledger.get_document(EVERYONE, "policy") is None


async def test_overlays_of_a_tenant_that_is_gone_or_do_not_fit_are_left_out_until_they_fit(
    path: Path, ledger: MemoryLedger
) -> None:
    replica = Replica(path, ledger)
    await replica.set(usd_per_day="2.5")
    await replica.set("zeta", alpha=0.7)
    boundless = FILE.replace("max_output_tokens = 1000", "").replace("[tenants.zeta]", "[tenants.eta]")
    _write(path, boundless)
    assert await replica.policies.reload()
    assert replica.policies.catalogue().tenants["acme"].limits == ()
    assert replica.seen.overlays == (0, 2)
    assert "max_output_tokens" in replica.policies.ignored("acme")[0]
    _write(path, FILE)
    assert await replica.policies.reload()
    assert replica.policies.catalogue().tenants["acme"].limits != ()
    assert (replica.dial("zeta"), replica.seen.overlays) == (FixedAlpha(0.7), (2, 0))


async def test_overrides_for_everyone_come_after_a_tenants_own(path: Path, ledger: MemoryLedger) -> None:
    replica = Replica(path, ledger)
    await replica.override(EVERYONE, OverrideKind.ALL_WEAK)
    await replica.override("acme", OverrideKind.ALL_STRONG)
    tenants = replica.policies.catalogue().tenants
    assert [each.kind for each in tenants["acme"].overrides] == [OverrideKind.ALL_STRONG, OverrideKind.ALL_WEAK]
    assert [each.kind for each in tenants["zeta"].overrides] == [OverrideKind.ALL_WEAK]
    assert replica.policies.overrides_in_force() == 2


async def test_the_trail_says_who_why_and_what_the_newest_first(path: Path, ledger: MemoryLedger) -> None:
    replica = Replica(path, ledger)
    await replica.set(alpha=0.7)
    await replica.override("acme", OverrideKind.ALL_WEAK)
    trail = await replica.policies.trail("acme")
    assert [entry.summary for entry in trail] == ["all_weak until 2033-05-18 03:33 UTC", "alpha = 0.7"]
    assert {(entry.change.author, entry.change.at) for entry in trail} == {("ada", 1e9)}
    assert [entry.change.reason for entry in trail] == ["an incident", "a test"]


class LosingTrails(MemoryLedger):
    """Does not write trails while `lose` is set, like a dispatcher that dies right after a change."""

    lose = False

    async def put_document(
        self, tenant_id: str, name: str, body: bytes, *, expected: int, lifetime: float | None = None
    ) -> bool:
        if self.lose and name == "policy-trail":
            raise LedgerUnavailable("down")
        return await super().put_document(tenant_id, name, body, expected=expected, lifetime=lifetime)


async def test_a_change_whose_trail_was_not_written_is_in_the_trail_all_the_same(path: Path) -> None:
    ledger = LosingTrails(lambda: 1e9)
    replica = Replica(path, ledger)
    ledger.lose = True
    with pytest.raises(LedgerUnavailable):
        await replica.set(alpha=0.7)
    assert [entry.summary for entry in await replica.policies.trail("acme")] == ["alpha = 0.7"]
    ledger.lose = False
    await replica.set(alpha=0.8)
    assert [entry.summary for entry in await replica.policies.trail("acme")] == ["alpha = 0.8", "alpha = 0.7"]


async def test_changes_of_several_replicas_at_once_are_all_kept(path: Path, ledger: MemoryLedger) -> None:
    replicas = [Replica(path, ledger) for _ in range(4)]
    await asyncio.gather(
        replicas[0].set(alpha=0.7),
        replicas[1].set(usd_per_day="2"),
        replicas[2].set("zeta", alpha=0.5),
        replicas[3].override("acme", OverrideKind.ALL_WEAK),
    )
    await replicas[0].policies.refresh()
    acme = replicas[0].policies.catalogue().tenants["acme"]
    assert (acme.dial, len(acme.limits), len(acme.overrides)) == (FixedAlpha(0.7), 1, 1)
    assert len(await replicas[0].policies.trail("acme")) == 3


async def test_without_the_ledger_the_last_known_overlays_stay(path: Path, ledger: MemoryLedger) -> None:
    replica = Replica(path, ledger)
    await replica.set(alpha=0.7)

    async def away(tenant_id: str, name: str) -> Document | None:
        raise LedgerUnavailable("down")

    ledger.get_document = away  # type: ignore[method-assign]
    await replica.policies.refresh()
    assert replica.dial() == FixedAlpha(0.7)
    _write(path, FILE.replace("0.3", "0.5"))
    assert await replica.policies.reload()
    assert replica.dial() == FixedAlpha(0.7)
