"""How far several dispatchers that pace one tenant miss its share, against an adversary, beside the bound.

    python -m benchmarks.pacing_replicas [--replicas 4] [--lease 32]

The adversary sends what goes strong as long as anything does, then what goes weak, and again, to whichever replica,
several at once. The bound holds for every window of calls of any sequence: (1 + η)/η + R·L.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from dispatcher_service.catalogue import OnScorerFailure, StrongCallShare, TenantPolicy
from dispatcher_service.ledger.opening import open_ledger
from dispatcher_service.pacer import LedgerPacer
from dispatcher_service.pacing_targets import Estimate, Reference, pacing_policy
from dispatcher_service.routing import Candidates, Ladder, Tier
from tests.proofs import valkey

_REFERENCE = Reference("uniform", tuple(step / 200 for step in range(201)))
_ESTIMATE = Estimate((1, 2))
_SHARE = 0.3
_PHASES, _BATCHES = 8, 120


async def widest_window(urls: Sequence[str], policy: TenantPolicy, *, seed: int = 7) -> tuple[float, int]:
    """max |Σ(x - ρ)| over all windows of consecutive calls, and how many calls there were."""
    random_ = random.Random(seed)
    ledgers = [open_ledger(url) for url in urls]
    pacers = [
        LedgerPacer(ledger, clock=time.monotonic, wall_clock=time.time, observe=lambda *_: None) for ledger in ledgers
    ]
    deviations: list[float] = []
    for phase in range(_PHASES):
        win_probability = 1.0 if phase % 2 == 0 else 0.0
        for _ in range(_BATCHES):
            batch = [
                pacers[random_.randrange(len(pacers))].decide(
                    policy, _REFERENCE, Candidates.pair(win_probability), _ESTIMATE
                )
                for _ in range(random_.randrange(1, 16))
            ]
            decisions = await asyncio.gather(*batch)
            deviations += [(decision.tier is Tier.STRONG) - _SHARE for decision in decisions]
    for ledger in ledgers:
        await ledger.close()
    sums = list(accumulate(deviations, initial=0.0))
    return max(sums) - min(sums), len(deviations)


def main(argv: list[str]) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--lease", type=int, default=32)
    options = parser.parse_args(argv)
    print(f"{'backend':10}{'window W':>10}{'calls':>8}{'widest |Σ(x - ρ)|':>20}{'bound':>10}")
    for window_calls in (100, 1000):
        paced = pacing_policy(share=_SHARE, alpha=None, limits=(), window_calls=window_calls, lease_calls=options.lease)
        assert paced is not None
        bound = (1 + paced.gain) / paced.gain + options.replicas * options.lease
        policy = TenantPolicy(
            tenant_id="acme",
            ladder=Ladder(("weak", "strong")),
            dial=StrongCallShare(_SHARE),
            on_scorer_failure=OnScorerFailure.WEAK,
            allow_alpha_override=False,
            extra_body_keys=frozenset(),
            scorer="",
            pacing=paced,
        )
        with tempfile.TemporaryDirectory() as folder, valkey(Path(folder)) as server:
            for name, url in (("SQLite", f"sqlite:{folder}/ledger.sqlite"), ("Valkey", server.url)):
                widest, calls = asyncio.run(widest_window([url] * options.replicas, policy))
                print(f"{name:10}{window_calls:>10}{calls:>8}{widest:>20.1f}{bound:>10.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
