"""Keys and headers of deployments: found in the environment or in mounted files, never in the TOML, never logged.

A file is read again whenever it changes, so that a rotated key works from the next call on. One that cannot be read
any more, or holds nothing usable, leaves the last good value in place: that is logged, without the value.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from dispatcher_service.catalogue import Api, Deployment, Value
from pointsman.runtime.logs import fields

logger = logging.getLogger(__name__)

# What RFC 9110 allows in a field value, without the bytes above ASCII that no key has.
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")
_MAX_FILE_BYTES: Final = 65_536
_LEAST_SECRET: Final = 8
"""Characters: shorter values, such as a version in a header, are no secrets."""


class CredentialError(Exception):
    """A value cannot be had. The message names the deployment, the place and the mend, never the value."""


class Credentials:
    """The headers that each deployment's calls need."""

    def __init__(self, deployments: Iterable[Deployment], environ: Mapping[str, str]) -> None:
        """Read every value once, so that what is missing stops the start and not a request.

        Raises:
            CredentialError: a variable is not set, or a file cannot be read, or a value cannot be a header.
        """
        self._environ = environ
        self._files: dict[str, _MountedFile] = {}
        for deployment in deployments:
            self.headers(deployment)

    def headers(self, deployment: Deployment) -> dict[str, str]:
        """The headers of one call, by lower-case name, with the values of this moment.

        Raises:
            CredentialError: see the constructor; only for a deployment that was not given there.
        """
        headers = {name: self._read(deployment, value) for name, value in deployment.headers}
        if deployment.api_key is not None:
            key = self._read(deployment, deployment.api_key)
            if deployment.api is Api.AZURE:
                headers["api-key"] = key
            else:
                headers["authorization"] = f"Bearer {key}"
        return headers

    def hide(self, deployment: Deployment, text: str) -> str:
        """A text from a deployment without the values that it was sent."""
        try:
            values = self.headers(deployment).values()
        except CredentialError:
            return "its words are withheld, since its key cannot be read to keep it out of them"
        for value in values:
            scheme, _, key = value.rpartition(" ")
            for secret in (value, key) if scheme else (value,):
                if len(secret) >= _LEAST_SECRET:
                    text = text.replace(secret, "[key]")
        return text

    def _read(self, deployment: Deployment, value: Value) -> str:
        try:
            if value.file:
                file = self._files.get(value.file)
                if file is None:
                    file = self._files[value.file] = _MountedFile(Path(value.file))
                return file.read()
            return _usable(self._environ[value.env] if value.env else value.text)
        except KeyError as error:
            raise CredentialError(f"deployment {deployment.name}: {value.place} is not set: set it") from error
        except OSError as error:
            mend = f"{error.strerror or error}: mount it"
            raise CredentialError(f"deployment {deployment.name}: {value.place} cannot be read: {mend}") from error
        except ValueError as error:
            mend = "holds no printable ASCII line: write the value alone"
            # The cause may quote the value.
            raise CredentialError(f"deployment {deployment.name}: {value.place} {mend}") from error


class _MountedFile:
    """A file with one value."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._value = ""
        self._good = False

    def read(self) -> str:
        """The value of this moment. A stat of a mounted secret takes microseconds, so that it needs no thread.

        Raises:
            OSError, ValueError: it never could be read.
        """
        try:
            status = self._path.stat()
            # A mounted secret is swapped by a symbolic link: the inode changes even where time and size do not.
            version = status.st_ino, status.st_mtime_ns, status.st_size
            if version != self._seen:
                self._load()
                self._seen = version
        except (OSError, ValueError) as error:
            if not self._good:
                raise
            if self._seen is not None:
                why = type(error).__name__ if isinstance(error, ValueError) else str(error.strerror)
                logger.error(
                    "a key file is unusable: its last value is kept", extra=fields(file=str(self._path), error=why)
                )
                self._seen = None
        return self._value

    def _load(self) -> None:
        with self._path.open("rb") as file:
            self._value = _usable(file.read(_MAX_FILE_BYTES).decode("ascii"))
        self._good = True


def _usable(text: str) -> str:
    """The value without the line break that editors add."""
    stripped = text.strip()
    if not _HEADER_VALUE.fullmatch(stripped):
        raise ValueError("not a header value")
    return stripped
