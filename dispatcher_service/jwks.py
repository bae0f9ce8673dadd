"""An issuer's public keys (RFC 7517): read when first needed, kept, read again in the background."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import jwt

from dispatcher_service.errors import IdentityUnavailable
from pointsman.runtime.logs import fields

MAX_BYTES = 1_048_576
"""A key set is a few kilobytes; more is not one."""

_RETRY_SECONDS = 10.0
"""Between two readings, whatever the tokens say: nobody makes us hammer the issuer with invented key ids."""

_MAX_AGE_FACTOR = 12
"""Keys that could not be read again for this many refresh intervals are believed no more."""

Read = Callable[[str, float], Awaitable[bytes]]
"""Reads a source, a URL or a path, within so many seconds. Raises OSError, TimeoutError or aiohttp.ClientError."""

logger = logging.getLogger(__name__)


async def read_source(source: str, timeout: float) -> bytes:
    """See `Read`. Follows no redirect: the configured host is the one that is trusted."""
    if not source.startswith(("https://", "http://")):
        return await asyncio.wait_for(asyncio.to_thread(Path(source).read_bytes), timeout)
    limits = aiohttp.ClientTimeout(total=timeout)
    async with (
        aiohttp.ClientSession(timeout=limits, trust_env=True) as session,
        session.get(source, allow_redirects=False) as response,
    ):
        if response.status != 200:
            raise OSError(f"HTTP status {response.status}")
        return await response.content.read(MAX_BYTES + 1)


class KeySet:
    """The keys of one source."""

    def __init__(self, source: str, *, refresh: float, timeout: float, read: Read, clock: Callable[[], float]) -> None:
        """`refresh` and `timeout` are those of `JwtPolicy`; `clock` gives monotonic seconds."""
        self._source = source
        self._refresh = refresh
        self._timeout = timeout
        self._read = read
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._reading: asyncio.Task[None] | None = None

    async def key(self, key_id: str | None) -> jwt.PyJWK | None:
        """The key of that id, or the only key there is for a token that names none; `None` if there is no such key.

        Raises:
            IdentityUnavailable: the keys cannot be read, and none are left that are fresh enough.
        """
        now = self._clock()
        age = None if self._read_at is None else now - self._read_at
        if age is None or age > self._refresh * _MAX_AGE_FACTOR:
            await self._read_again()
            if self._read_at is None or self._clock() - self._read_at > self._refresh * _MAX_AGE_FACTOR:
                raise IdentityUnavailable
        elif age > self._refresh:
            self._start()  # Nobody waits for it: the keys at hand are good for a while.
        found = self._find(key_id)
        if found is None:
            # A new key that the issuer has just begun to use.
            await self._read_again()
            found = self._find(key_id)
        return found

    async def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    def _find(self, key_id: str | None) -> jwt.PyJWK | None:
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    async def _read_again(self) -> None:
        self._start()
        if self._reading is not None:
            # Shielded: the caller who began it may go away, the others still wait for it.
            await asyncio.shield(self._reading)

    def _start(self) -> None:
        """Begin to read, unless somebody does or has just done so."""
        if self._reading is not None and not self._reading.done():
            return
        now = self._clock()
        if self._tried_at is not None and now - self._tried_at < min(_RETRY_SECONDS, self._refresh):
            self._reading = None
            return
        self._tried_at = now
        self._reading = asyncio.get_running_loop().create_task(self._load())

    async def _load(self) -> None:
        try:
            text = await self._read(self._source, self._timeout)
            if len(text) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
            parsed = json.loads(text)
            if not isinstance(parsed, dict):
                raise ValueError("not a JSON object")
            keys = jwt.PyJWKSet.from_dict(parsed).keys
        except (OSError, TimeoutError, aiohttp.ClientError, ValueError, jwt.PyJWTError) as error:
            logger.warning(
                "cannot read the issuer's keys", extra=fields(jwks=self._source, problem=str(error) or repr(error))
            )
            return
        # Symmetric keys have no business in a public set: whoever reads it could sign.
        self._keys = {key.key_id or "": key for key in keys if key.key_type != "oct"}
        self._read_at = self._clock()
