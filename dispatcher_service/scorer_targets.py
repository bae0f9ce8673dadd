"""Where the scorers are, as frozen values: the main one and its canaries."""

from dataclasses import dataclass

EMBEDDED = "embedded"
"""The address of a scorer in the dispatcher's own process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerTls:
    """Paths of PEM files, empty where there is none. See `pointsman.runtime.channels.ClientTls`."""

    ca: str
    certificate: str
    key: str
    server_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerEndpoint:
    """One scorer: a gRPC target or `EMBEDDED`. `artifact` is an embedded one's directory, empty for the shipped one."""

    address: str
    artifact: str = ""
    tls: ScorerTls | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A scorer that serves a share of the tenants, `weight`, in [0, 1]."""

    name: str
    weight: float
    endpoint: ScorerEndpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerTarget:
    """Where the scorers are.

    Attributes:
        address, artifact, tls: of the main one; see `ScorerEndpoint`.
        timeout: the dispatcher's whole patience for one prediction, in seconds.
        answer_timeout: the same for one verdict on an answer, and for one ranking of several.
        breaker_failures: failures in a row after which a scorer is left alone.
        breaker_cooldown: for how many seconds.
        canaries: scorers that serve some of the tenants.
    """

    address: str
    timeout: float
    artifact: str = ""
    tls: ScorerTls | None = None
    answer_timeout: float = 1.0
    breaker_failures: int = 5
    breaker_cooldown: float = 1.0
    canaries: tuple[Canary, ...] = ()

    @property
    def main(self) -> ScorerEndpoint:
        """The scorer of all tenants that no canary serves."""
        return ScorerEndpoint(address=self.address, artifact=self.artifact, tls=self.tls)
