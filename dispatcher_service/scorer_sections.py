"""The configuration file's `[scorer]`: what it takes, and the `ScorerTarget` that it becomes."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from dispatcher_service.scorer_targets import EMBEDDED, Canary, ScorerEndpoint, ScorerTarget, ScorerTls
from dispatcher_service.scorers import JUDGE, MAIN
from dispatcher_service.upstream_sections import Seconds, Section


class ScorerTlsSection(Section):
    """`tls` of a scorer. Empty (`{}`) trusts the authorities that gRPC trusts by itself."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key belong together: set both, or neither")
        return self

    def freeze(self) -> ScorerTls:
        return ScorerTls(ca=self.ca, certificate=self.certificate, key=self.key, server_name=self.server_name)


class EndpointSection(Section):
    """What the main scorer and a canary have in common."""

    address: Annotated[str, Field(min_length=1)] = "127.0.0.1:50051"
    artifact: str = ""
    tls: ScorerTlsSection | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.address == EMBEDDED and self.tls is not None:
            raise ValueError("tls is for scorers that are called over a network: remove it, or set an address")
        if self.address != EMBEDDED and self.artifact:
            raise ValueError('artifact is for address = "embedded": a service has its own in SCORER_ARTIFACTS')
        return self

    def endpoint(self) -> ScorerEndpoint:
        tls = None if self.tls is None else self.tls.freeze()
        return ScorerEndpoint(address=self.address, artifact=self.artifact, tls=tls)


class CanarySection(EndpointSection):
    """One of `[[scorer.canaries]]`."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
    weight: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ScorerSection(EndpointSection):
    """`[scorer]`."""

    timeout: Seconds = 0.25
    answer_timeout: Seconds = 1.0
    breaker_failures: Annotated[int, Field(ge=1, le=1000)] = 5
    breaker_cooldown: Seconds = 1.0
    canaries: tuple[CanarySection, ...] = ()


def scorer_problems(section: ScorerSection) -> list[str]:
    """What is wrong between these keys, one line each."""
    names = [canary.name for canary in section.canaries]
    return [
        f"scorer.canaries: {name!r} stands twice, or is the main scorer's name: choose another"
        for name in sorted({name for name in names if names.count(name) > 1 or name in (MAIN, JUDGE)})
    ]


def scorer_target(section: ScorerSection) -> ScorerTarget:
    """Freeze a section that has no problems."""
    main = section.endpoint()
    return ScorerTarget(
        address=main.address,
        artifact=main.artifact,
        tls=main.tls,
        timeout=section.timeout,
        answer_timeout=section.answer_timeout,
        breaker_failures=section.breaker_failures,
        breaker_cooldown=section.breaker_cooldown,
        canaries=tuple(
            Canary(name=canary.name, weight=canary.weight, endpoint=canary.endpoint()) for canary in section.canaries
        ),
    )
