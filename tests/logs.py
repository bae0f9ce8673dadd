"""A decision log as `pointsman decisions export` writes it, of an imaginary tenant whose opinions we know."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from tests import battles

START = datetime(2026, 11, 1, tzinfo=UTC)


def write(path: Path, count: int = 600, *, seed: int = 0, overlap: float = 0.5, preferences: float = 0.2) -> Path:
    """Write a log in which the strong model is better at proofs and sums, whatever the scorer thinks.

    Args:
        path: of the file.
        count: of records, one a minute.
        seed: of everything.
        overlap: how far alpha wanders beside a fixed win probability: 0 is a threshold that never moves.
        preferences: share of records with one; of the rest three in five are rated.
    """
    generator = np.random.default_rng(seed)
    lines = []
    for place in range(count):
        prompt, hard = battles.prompt(generator)
        win_probability = float(np.clip(generator.normal(0.5, 0.15), 0.01, 0.99))
        alpha = 0.5 + overlap * generator.uniform(-0.5, 0.5)
        strong = win_probability >= alpha
        good = {"strong": generator.random() < 0.9, "weak": generator.random() < (0.2 if hard else 0.9)}
        record: dict[str, Any] = {
            "request_id": f"r-{place}",
            "tenant_id": "research",
            # As protobuf writes it: with as many digits of the second as there are.
            "received_at": f"{START + timedelta(minutes=place):%Y-%m-%dT%H:%M:%S}{'.000' * (place % 2)}Z",
            "status": "OK",
            "decision": {
                "tier": "TIER_STRONG" if strong else "TIER_WEAK",
                "reason": "REASON_AT_OR_ABOVE_ALPHA" if strong else "REASON_BELOW_ALPHA",
                "alpha": alpha,
                "win_probability": win_probability,
                "scorer_version": "0123456789abcdef",
            },
            "text": {"messages": [{"role": "ROLE_USER", "text": prompt}]},
        }
        own, other = (good["strong"], good["weak"]) if strong else (good["weak"], good["strong"])
        if generator.random() < preferences:
            better = "TIE" if own == other else "CHOSEN" if own else "OTHER"
            record["feedback"] = {"preference": f"PREFERENCE_{better}"}
        elif generator.random() < 0.6:
            record["feedback"] = {"rating": float(own)}
        lines.append(json.dumps(record))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
