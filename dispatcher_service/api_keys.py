"""API keys: `pmk_<id>_<secret>`. The id is public and finds the record; the secret has 256 bits and is never kept.

A record holds SHA-256 of the whole key. A slow password hash would add nothing here: it protects what people can
remember and attackers can guess, and 256 random bits are neither.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass

PREFIX = "pmk_"
"""By this, secret scanners find a key that was committed, and we tell keys from tokens."""

_KEY = re.compile(r"pmk_(?P<id>[0-9a-f]{12})_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. `text` is shown once; the rest goes into the configuration."""

    text: str
    id: str
    sha256: str


def new_key() -> NewKey:
    """Make a key from the operating system's randomness."""
    id_ = secrets.token_hex(6)
    text = f"{PREFIX}{id_}_{secrets.token_urlsafe(32)}"
    return NewKey(text=text, id=id_, sha256=digest(text).hex())


def id_of(key: str) -> str | None:
    """The id inside a key, `None` if it is no key."""
    match = _KEY.fullmatch(key)
    return None if match is None else match["id"]


def digest(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).digest()
