"""A tenant's pace as bytes, for the ledger to keep, and back.

JSON, so that versions N and N+1 read each other's: unknown members are ignored, missing ones take their defaults. The
histograms, which are most of it, are base64 of little-endian floats: a hundred thousandth of a call is exact enough.
"""

import json
import struct
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from dispatcher_service.distribution import Distribution
from dispatcher_service.pacing_state import Integrator, Pace

FORMAT = 1
"""Raised only where an older program would misread what a newer one wrote."""

_INTEGRATOR_FIELDS = frozenset(field.name for field in fields(Integrator))


class UnreadableError(Exception):
    """Bytes that this version cannot take for a pace."""


def encode(pace: Pace) -> bytes:
    """The pace as it is stored."""
    document = {
        "format": FORMAT,
        "integrators": {key: asdict(integrator) for key, integrator in pace.integrators.items()},
        # A list, since the order says which version was in use last.
        "versions": [
            {
                "version": version,
                "weights": _pack("f", distribution.weights),
                "reference": _pack("d", pace.references[version]),
            }
            for version, distribution in pace.distributions.items()
        ],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def decode(body: bytes) -> Pace:
    """The pace that was stored.

    Raises:
        UnreadableError: it is damaged, or of a format that this version does not know.
    """
    try:
        document = json.loads(body)
        if document["format"] != FORMAT:
            raise UnreadableError(f"format {document['format']}, this version reads {FORMAT}")
        versions = document["versions"]
        return Pace(
            integrators={key: _integrator(values) for key, values in document["integrators"].items()},
            distributions={entry["version"]: Distribution(_unpack("f", entry["weights"])) for entry in versions},
            references={entry["version"]: _unpack("d", entry["reference"]) for entry in versions},
        )
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise UnreadableError(f"damaged: {error}") from error


def _integrator(values: Mapping[str, Any]) -> Integrator:
    return Integrator(**{name: value for name, value in values.items() if name in _INTEGRATOR_FIELDS})


def _pack(kind: str, values: Sequence[float]) -> str:
    return b64encode(struct.pack(f"<{len(values)}{kind}", *values)).decode()


def _unpack(kind: str, text: str) -> tuple[float, ...]:
    raw = b64decode(text)
    return struct.unpack(f"<{len(raw) // struct.calcsize(kind)}{kind}", raw)
