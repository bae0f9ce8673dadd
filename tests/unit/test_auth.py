"""Who a credential is taken for. No wrong one is told from another, and none acts for another tenant."""

import asyncio
import datetime
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest

from dispatcher_service.api_keys import new_key
from dispatcher_service.auth import Authenticator, Method, Result
from dispatcher_service.catalogue import Catalogue
from dispatcher_service.errors import Forbidden, IdentityUnavailable, PointsmanError, Unauthenticated
from dispatcher_service.identity import AuthMode, Principal
from dispatcher_service.jwks import KeySet
from dispatcher_service.tenants import ConfigError, load_catalogue
from dispatcher_service.tokens import TokenVerifier
from tests.identities import AUDIENCE, ISSUER, Call, Issuer, key_line
from tests.unit.test_tenants import GOOD

OLD, NEW, EXPIRED, SUPPORT, ADMIN = (new_key() for _ in range(5))
RESEARCH = Principal("research", is_admin=False)
AUTH = f"""
[auth.jwt]
jwks = "/keys.json"
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
admin_value = "pointsman-admin"

[admins.ops]
api_keys = [{key_line(ADMIN)}]
certificates = ["subject:CN=ops"]
"""
CONFIG = GOOD.replace(
    "[tenants.research]",
    f"""[tenants.research]
api_keys = [{key_line(OLD)}, {key_line(NEW, expires="2100-01-01")}, {key_line(EXPIRED, expires="2026-01-01")}]
certificates = ["uri:spiffe://mesh/research"]""",
).replace("[tenants.support]", f"[tenants.support]\napi_keys = [{key_line(SUPPORT)}]")


class Bench:
    """An authenticator over a configuration and an issuer whose key set is a text."""

    def __init__(self, folder: Path, text: str = CONFIG + AUTH) -> None:
        file = folder / "dispatcher.toml"
        file.write_text(text)
        self.catalogue: Catalogue = load_catalogue(file)
        self.issuer = Issuer()
        self.key_set: str | Exception = self.issuer.key_set
        self.readings = 0
        self.now = 1000.0
        self.seen: list[tuple[Method, Result]] = []
        self.auth = Authenticator(
            mode=self.catalogue.auth.mode,
            catalogue=lambda: self.catalogue,
            tokens=TokenVerifier(clock=lambda: self.now, read=self._read),
            default_tenant=None,
            observe=lambda method, result: self.seen.append((method, result)),
            wall_clock=lambda: datetime.datetime(2026, 11, 10, tzinfo=datetime.UTC).timestamp(),
        )

    async def _read(self, source: str, timeout: float) -> bytes:
        assert (source, timeout) == ("/keys.json", 2.0)
        self.readings += 1
        if isinstance(self.key_set, Exception):
            raise self.key_set
        return self.key_set.encode()

    async def who(self, credential: str, **metadata: str) -> Principal:
        return await self.auth.authenticate(Call.with_bearer(credential, **metadata))

    async def refuses(self, call: Call) -> Result:
        """The result that operators see; callers see one and the same error."""
        with pytest.raises(Unauthenticated) as caught:
            await self.auth.authenticate(call)
        assert str(caught.value) == "no valid tenant credential"
        assert caught.value.__suppress_context__
        return self.seen[-1][1]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_each_key_of_a_tenant_opens_its_door_so_that_keys_can_be_rotated(bench: Bench) -> None:
    assert await bench.who(OLD.text) == RESEARCH
    assert await bench.who(NEW.text) == RESEARCH
    assert await bench.who(SUPPORT.text) == Principal("support", is_admin=False)
    assert await bench.who(ADMIN.text) == Principal("", is_admin=True, name="ops")
    assert set(bench.seen) == {(Method.API_KEY, Result.OK)}


@pytest.mark.parametrize(
    ("credential", "result"),
    [
        (EXPIRED.text, Result.EXPIRED),
        (OLD.text[:-1] + ("A" if OLD.text[-1] != "A" else "B"), Result.WRONG),
        (OLD.text + "A", Result.MALFORMED),
        (new_key().text, Result.UNKNOWN),
        ("pmk_", Result.MALFORMED),
        ("", Result.WRONG),
        ("not.a.token", Result.WRONG),
        (OLD.sha256, Result.WRONG),
    ],
    ids=["expired", "wrong", "long", "unknown", "prefix", "empty", "token", "hash"],
)
async def test_a_wrong_key_is_refused_and_never_told_why(bench: Bench, credential: str, result: Result) -> None:
    assert await bench.refuses(Call.with_bearer(credential)) is result


async def test_a_key_is_good_through_its_last_day(bench: Bench) -> None:
    expires = bench.catalogue.auth.api_keys[EXPIRED.id].expires_at
    assert expires == datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC).timestamp()


async def test_no_credential_two_credentials_and_another_scheme_are_refused(bench: Bench) -> None:
    assert await bench.refuses(Call()) is Result.MISSING
    twice = Call.with_bearer(OLD.text).metadata * 2
    assert await bench.refuses(Call(metadata=twice)) is Result.MALFORMED
    assert await bench.refuses(Call(metadata=(("authorization", f"Basic {OLD.text}"),))) is Result.MALFORMED


async def test_a_credential_never_acts_for_another_tenant(bench: Bench) -> None:
    assert await bench.who(OLD.text, x_pointsman_tenant="research") == RESEARCH
    for other in ("support", "", "RESEARCH", "nobody"):
        call = Call.with_bearer(OLD.text, x_pointsman_tenant=other)
        assert await bench.refuses(call) is Result.OTHER_TENANT


async def test_naming_a_tenant_is_no_credential(bench: Bench) -> None:
    assert await bench.refuses(Call(metadata=(("x-pointsman-tenant", "research"),))) is Result.MISSING


async def test_an_admin_spends_no_money_and_a_tenant_administers_nothing(bench: Bench) -> None:
    admin, tenant = await bench.who(ADMIN.text), await bench.who(OLD.text)
    admin.require_admin()
    assert tenant.tenant() == "research"
    with pytest.raises(Forbidden):
        admin.tenant()
    with pytest.raises(Forbidden):
        tenant.require_admin()


async def test_a_token_names_its_tenant_or_an_admin(bench: Bench) -> None:
    assert await bench.who(bench.issuer.token(tenant="research")) == RESEARCH
    assert await bench.who(bench.issuer.token(roles=["reader", "pointsman-admin"])) == Principal("", is_admin=True)
    assert bench.seen == [(Method.JWT, Result.OK)] * 2
    assert bench.readings == 1, "the key set is kept"


@pytest.mark.parametrize(
    ("make", "result"),
    [
        (lambda issuer: issuer.token(tenant="research", exp=1000), Result.EXPIRED),
        (lambda issuer: issuer.token(tenant="research", exp=None), Result.WRONG),
        (lambda issuer: issuer.token(tenant="research", aud="another"), Result.WRONG),
        (lambda issuer: issuer.token(tenant="research", aud=None), Result.WRONG),
        (lambda issuer: issuer.token(tenant="research", iss="https://evil.test"), Result.WRONG),
        (lambda issuer: issuer.token(tenant="research", nbf=4e9), Result.WRONG),
        (lambda issuer: issuer.token(), Result.WRONG),
        (lambda issuer: issuer.token(tenant=["research"]), Result.WRONG),
        (lambda issuer: issuer.token(tenant="nobody"), Result.UNKNOWN_TENANT),
        (lambda issuer: issuer.token(roles="reader"), Result.WRONG),
        (lambda issuer: Issuer().token(tenant="research"), Result.WRONG),
        (lambda issuer: Issuer("k2").token(tenant="research"), Result.WRONG),
        (lambda issuer: issuer.token(tenant="research")[:-4] + "AAAA", Result.WRONG),
    ],
)
async def test_a_token_that_is_not_the_issuers_for_us_and_for_now_is_refused(
    bench: Bench, make: Callable[[Issuer], str], result: Result
) -> None:
    assert await bench.refuses(Call.with_bearer(make(bench.issuer))) is result


async def test_a_token_signed_with_the_public_key_or_not_at_all_is_refused(bench: Bench) -> None:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": 4e9, "tenant": "research"}
    unsigned = jwt.encode(claims, "", algorithm="none")
    public = bench.issuer.public_key["x"] + bench.issuer.public_key["y"]
    confused = jwt.encode(claims, public, algorithm="HS256", headers={"kid": "k1"})
    for token in (unsigned, confused):
        assert await bench.refuses(Call.with_bearer(token)) is Result.WRONG
    assert bench.readings == 0, "nothing is fetched for a token that can never be good"


async def test_a_key_that_the_issuer_has_just_begun_to_use_is_found(bench: Bench) -> None:
    assert await bench.who(bench.issuer.token(tenant="research")) == RESEARCH
    bench.issuer = Issuer("k2")
    bench.key_set = bench.issuer.key_set
    token = bench.issuer.token(tenant="research")
    assert await bench.refuses(Call.with_bearer(token)) is Result.WRONG, "read a moment ago: not again so soon"
    bench.now += 11
    assert await bench.who(token) == RESEARCH
    assert bench.readings == 2


async def test_invented_key_ids_cause_one_reading_in_ten_seconds(bench: Bench) -> None:
    await bench.who(bench.issuer.token(tenant="research"))
    bench.now += 11
    for number in range(20):
        forged = Issuer(f"invented-{number}").token(tenant="research")
        assert await bench.refuses(Call.with_bearer(forged)) is Result.WRONG
    assert bench.readings == 2


async def test_an_issuer_that_is_away_is_survived_for_an_hour_and_then_said(bench: Bench) -> None:
    token = bench.issuer.token(tenant="research")
    assert await bench.who(token) == RESEARCH
    bench.key_set = OSError("unreachable")
    bench.now += 3500
    assert await bench.who(token) == RESEARCH
    bench.now += 200
    with pytest.raises(IdentityUnavailable):
        await bench.who(token)
    bench.key_set = bench.issuer.key_set
    bench.now += 11
    assert await bench.who(token) == RESEARCH


@pytest.mark.parametrize("text", ["", "[]", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "AAAA", "kid": "k1"}]}'])
async def test_a_key_set_that_is_none_opens_nothing(bench: Bench, text: str) -> None:
    bench.key_set = text
    with pytest.raises(PointsmanError):
        await bench.who(bench.issuer.token(tenant="research"))


async def test_calls_that_wait_for_the_keys_share_one_reading() -> None:
    issuer = Issuer()
    readings = 0

    async def read(_source: str, _timeout: float) -> bytes:
        nonlocal readings
        readings += 1
        return issuer.key_set.encode()

    keys = KeySet("/keys", refresh=300, timeout=1, read=read, clock=lambda: 0.0)
    found = await asyncio.gather(*(keys.key("k1") for _ in range(10)))
    assert readings == 1
    assert all(key is not None for key in found)


async def test_a_certificate_names_its_owner_by_one_kind_of_name(bench: Bench) -> None:
    peer = {"peer_uri": [b"spiffe://mesh/research"], "x509_subject": [b"CN=whatever"]}
    assert await bench.auth.authenticate(Call(peer=peer)) == RESEARCH
    assert (await bench.auth.authenticate(Call(peer={"x509_subject": [b"CN=ops"]}))).is_admin
    # The same text under another kind of name is another name.
    assert await bench.refuses(Call(peer={"peer_dns": [b"spiffe://mesh/research"]})) is Result.UNKNOWN
    both = {"peer_uri": [b"spiffe://mesh/research"], "x509_subject": [b"CN=ops"]}
    assert await bench.refuses(Call(peer=both)) is Result.UNKNOWN


async def test_a_certificate_does_not_make_up_for_a_bad_key(bench: Bench) -> None:
    call = Call.with_bearer(EXPIRED.text)
    call.peer = {"peer_uri": [b"spiffe://mesh/research"]}
    assert await bench.refuses(call) is Result.EXPIRED


async def test_a_reloaded_configuration_counts_at_once(bench: Bench, tmp_path: Path) -> None:
    assert await bench.who(OLD.text) == RESEARCH
    bench.catalogue = Bench(tmp_path, (CONFIG + AUTH).replace(f"{key_line(OLD)}, ", "")).catalogue
    assert await bench.refuses(Call.with_bearer(OLD.text)) is Result.UNKNOWN
    assert await bench.who(NEW.text) == RESEARCH


async def test_without_authentication_callers_name_a_configured_tenant_and_are_admins(tmp_path: Path) -> None:
    bench = Bench(tmp_path, GOOD)
    assert bench.catalogue.auth.mode is AuthMode.NONE
    named = Call(metadata=(("x-pointsman-tenant", "support"),))
    assert await bench.auth.authenticate(named) == Principal("support", is_admin=True)
    assert await bench.refuses(Call(metadata=(("x-pointsman-tenant", "nobody"),))) is Result.UNKNOWN_TENANT
    assert await bench.refuses(Call()) is Result.MISSING


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("[auth.jwt]", '[auth]\nmode = "none"\n[auth.jwt]', "auth.mode: 'none' with credentials configured"),
        (key_line(SUPPORT), key_line(OLD), f"tenants.support.api_keys: id '{OLD.id}' is tenants.research's already"),
        ('"subject:CN=ops"', '"CN=ops"', "admins.ops.certificates.0: "),
        ('"/keys.json"', '"http://issuer.test/keys"', "auth.jwt.jwks: "),
        ("[auth.jwt]", '[auth.jwt]\nalgorithms = ["HS256"]', "auth.jwt.algorithms.0: "),
        ("[auth.jwt]", "[auth.jwt]\nleway = 3", "auth.jwt.leway: unknown key: did you mean 'leeway'?"),
        (key_line(OLD), key_line(OLD).replace("id =", "idd ="), "api_keys.0.idd: unknown key: did you mean 'id'?"),
        (OLD.sha256, OLD.text, "tenants.research.api_keys.0.sha256: "),
        ("2026-01-01", "2026-01-01T12:00:00", "expires"),
    ],
    ids=["none", "shared", "kind", "http", "symmetric", "leway", "idd", "key-for-hash", "no-zone"],
)
def test_a_mistake_in_the_credentials_is_named(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in CONFIG + AUTH
    with pytest.raises(ConfigError) as caught:
        Bench(tmp_path, (CONFIG + AUTH).replace(old, new))
    assert any(problem in line for line in caught.value.problems), caught.value.problems
    assert OLD.text not in str(caught.value), "a key in the place of its hash is not shown"


def test_required_credentials_that_nobody_has_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nobody could call"):
        Bench(tmp_path, GOOD + '\n[auth]\nmode = "required"\n')
