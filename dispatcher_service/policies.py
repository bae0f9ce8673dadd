"""The configuration of this moment: the file, with what was changed at run time laid over it.

Everything that needs the configuration calls `catalogue()` once per request, so that a change never falls into the
middle of one. Two things make a new catalogue, beside the requests and without dropping any:

- *The file* is read again when it has changed (looked at every `FILE_SECONDS`) and on SIGHUP. A bad one is refused:
  that is logged and gauged, and the old one stays in force.
- *Overlays* (see overlay.py) are one document beside the ledger. Whoever changes it has it in force at once, other
  replicas within `OVERLAY_SECONDS`. While the ledger is away, the last known overlays stay.

An overlay that does not fit the file any more, for a tenant that is gone or a limit that lost its bounds, is left out:
logged, gauged, and in force again once it fits.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from dispatcher_service import freezing, overlay, tasks
from dispatcher_service.audit_trail import AuditTrail, Entry
from dispatcher_service.catalogue import Catalogue
from dispatcher_service.errors import Busy, InvalidRequest, LedgerUnavailable, NotFound
from dispatcher_service.layers import Documents
from dispatcher_service.overlay import EVERYONE, Change, Overlay, OverlayError, Overlays
from dispatcher_service.sections import FileSection
from dispatcher_service.tenants import ConfigError, inconsistencies, read_file
from pointsman.runtime.logs import fields

logger = logging.getLogger(__name__)

FILE_SECONDS = 2.0
OVERLAY_SECONDS = 5.0

_DOCUMENT = "policy"
_TRIES = 8

Accept = Callable[[Catalogue], Awaitable[None]]
"""Makes ready for a catalogue before it is in force; raises ConfigError where it cannot be served."""


class Observe(Protocol):
    """What metrics see of it. Must not raise."""

    def config_loaded(self, *, good: bool) -> None:
        """The file was read; a bad one is not in force."""

    def overlays_in_force(self, *, applied: int, ignored: int) -> None:
        """Of so many tenants; ignored ones do not fit the file."""


@dataclass(frozen=True, slots=True)
class _State:
    """What is in force. Replaced as a whole."""

    file: FileSection
    overlays: Overlays
    catalogue: Catalogue
    effective: FileSection
    ignored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Policies:
    """Holds the configuration. Use from one event loop."""

    def __init__(
        self,
        path: Path,
        *,
        documents: Documents,
        observe: Observe,
        wall_clock: Callable[[], float],
    ) -> None:
        """Read the file.

        Raises:
            ConfigError: it cannot be used.
        """
        self._path = path
        self._documents = documents
        self._trail = AuditTrail(documents)
        self._observe = observe
        self._accept: Accept = _accept_all
        self._tasks: set[asyncio.Task[object]] = set()
        self._wall_clock = wall_clock
        self._seen = _signature(path)
        self._version = 0
        self._away = False
        self._state = self._made(read_file(path), {})
        observe.config_loaded(good=True)

    def accept_by(self, accept: Accept) -> None:
        """Ask `accept` of every catalogue that a file makes from now on."""
        self._accept = accept

    async def start(self) -> None:
        """Take over the overlays, and follow the file and the overlays from now on."""
        await self.refresh()
        self._spawn(self._follow())

    def reload_soon(self) -> None:
        """Read the file again, as for SIGHUP."""
        self._spawn(self.reload())

    async def close(self) -> None:
        """Follow no longer."""
        await tasks.end(self._tasks)

    def catalogue(self) -> Catalogue:
        """What is in force now. Frozen: keep it for a request, not for longer."""
        return self._state.catalogue

    def sections(self) -> tuple[FileSection, FileSection]:
        """The file's sections, and those with the overlays laid over them."""
        return self._state.file, self._state.effective

    def overlay_of(self, tenant_id: str) -> Overlay:
        """The tenant's own overlay, or that of `EVERYONE`."""
        return self._state.overlays.get(tenant_id, Overlay())

    def overrides_in_force(self) -> int:
        """How many overrides, of tenants or of everyone, have not expired."""
        now = self._wall_clock()
        overlays = self._state.overlays.values()
        return sum(now < each.override.expires_at for own in overlays for each in own.overrides)

    def ignored(self, tenant_id: str) -> tuple[str, ...]:
        """Why the tenant's overlay is not in force; empty if it is."""
        return self._state.ignored.get(tenant_id, ())

    async def reload(self) -> bool:
        """Read the file again. False if it is refused; the old one then stays."""
        self._seen = _signature(self._path)
        try:
            # Parsing a large file takes a while: not on the loop.
            file = await asyncio.to_thread(read_file, self._path)
            state = self._made(file, self._state.overlays)
            await self._accept(state.catalogue)
        except ConfigError as error:
            self._observe.config_loaded(good=False)
            logger.error(
                "the configuration file is refused: the old one stays in force",
                extra=fields(file=str(self._path), problems=error.problems),
            )
            return False
        self._state = state
        self._observe.config_loaded(good=True)
        logger.info("the configuration file was loaded again", extra=fields(file=str(self._path)))
        return True

    async def refresh(self) -> None:
        """Take over what other replicas have changed."""
        try:
            version, overlays = await self._read()
        except (LedgerUnavailable, ValueError) as error:
            if not self._away:
                logger.warning("overlays cannot be read: the last known stay", extra=fields(error=str(error)))
            self._away = True
            return
        self._away = False
        if version != self._version:
            self._take(version, overlays)

    async def change(
        self, tenant_id: str, make: Callable[[Overlay, Change], Overlay], *, author: str, reason: str
    ) -> None:
        """Change a tenant's overlay, or that of `EVERYONE`, for all replicas; it is in force here on return.

        Raises:
            NotFound: there is no such tenant.
            InvalidRequest: the result would not fit the file; names the first problem.
            Busy: too many change overlays at once.
            LedgerUnavailable: it cannot be written.
        """
        if tenant_id != EVERYONE and tenant_id not in self._state.file.tenants:
            raise NotFound(f"tenant {tenant_id}: there is none of this name in the configuration")
        change = Change(uuid.uuid4().hex, author, reason, self._wall_clock())
        for _ in range(_TRIES):
            version, overlays = await self._read()
            before = overlays.get(tenant_id, Overlay())
            after = make(before, change)
            self._check(tenant_id, after)
            wanted = {**overlays, tenant_id: after}
            if not await self._documents.put_document(EVERYONE, _DOCUMENT, overlay.write(wanted), expected=version):
                continue
            self._take(version + 1, wanted)
            logger.info("a policy was changed", extra=fields(tenant=tenant_id, change=after.summary, **asdict(change)))
            await self._trail.append(tenant_id, before, after)
            return
        raise Busy("policies are being changed by others at the same time: try again")

    async def trail(self, tenant_id: str) -> list[Entry]:
        """The latest changes, the newest first; some 500 are kept."""
        _, overlays = await self._read()
        return (await self._trail.entries(tenant_id, overlays.get(tenant_id, Overlay())))[::-1]

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task: asyncio.Task[object] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        next_file, next_overlays = loop.time() + FILE_SECONDS, loop.time() + OVERLAY_SECONDS
        while True:
            await asyncio.sleep(max(min(next_file, next_overlays) - loop.time(), 0.0))
            try:
                if loop.time() >= next_file:
                    next_file = loop.time() + FILE_SECONDS
                    if _signature(self._path) != self._seen:
                        await self.reload()
                if loop.time() >= next_overlays:
                    next_overlays = loop.time() + OVERLAY_SECONDS
                    await self.refresh()
            except Exception:
                # Following must go on: what is in force stays in force.
                logger.exception("the configuration could not be followed")

    async def _read(self) -> tuple[int, Overlays]:
        document = await self._documents.get_document(EVERYONE, _DOCUMENT)
        return (0, {}) if document is None else (document.version, overlay.read(document.body))

    def _check(self, tenant_id: str, wanted: Overlay) -> None:
        section = self._state.file.tenants.get(tenant_id)
        if section is None:
            return  # Everyone has overrides alone, and those fit any file.
        problems = _problems(self._state.file, tenant_id, wanted)
        if problems:
            key, _, mend = problems[0].removeprefix(f"tenants.{tenant_id}").lstrip(".").partition(": ")
            raise InvalidRequest(key or "set", mend)

    def _take(self, version: int, overlays: Overlays) -> None:
        self._version = version
        self._state = self._made(self._state.file, overlays)

    def _made(self, file: FileSection, overlays: Overlays) -> _State:
        tenants = dict(file.tenants)
        ignored: dict[str, tuple[str, ...]] = {}
        for tenant_id, own in overlays.items():
            if tenant_id == EVERYONE or not own.values:
                continue
            problems = _problems(file, tenant_id, own)
            if problems:
                ignored[tenant_id] = tuple(problems)
                logger.error(
                    "an overlay does not fit the configuration file: it is not in force",
                    extra=fields(tenant=tenant_id, problems=problems),
                )
            else:
                tenants[tenant_id] = overlay.apply(file.tenants[tenant_id], own)
        effective = file.model_copy(update={"tenants": tenants})
        catalogue = freezing.catalogue(effective)
        everyones = [each.override for each in overlays.get(EVERYONE, Overlay()).overrides]
        policies = {
            tenant_id: replace(
                policy,
                overrides=tuple([each.override for each in overlays.get(tenant_id, Overlay()).overrides] + everyones),
            )
            for tenant_id, policy in catalogue.tenants.items()
        }
        catalogue = replace(catalogue, tenants=policies)
        self._observe.overlays_in_force(
            applied=sum(bool(own.values or own.overrides) for own in overlays.values()) - len(ignored),
            ignored=len(ignored),
        )
        return _State(file, overlays, catalogue, effective, ignored)


def _problems(file: FileSection, tenant_id: str, wanted: Overlay) -> list[str]:
    """Why an overlay does not fit the file; empty if it does."""
    section = file.tenants.get(tenant_id)
    if section is None:
        return [f"tenants.{tenant_id}: there is none of this name"]
    try:
        laid = overlay.apply(section, wanted)
    except OverlayError as error:
        return error.problems
    return inconsistencies(file.model_copy(update={"tenants": {**file.tenants, tenant_id: laid}}))


async def _accept_all(_: Catalogue) -> None:
    pass


def _signature(path: Path) -> tuple[int, int, int] | None:
    """Changes whenever the file does, also where a mounted one is swapped by a symbolic link; `None` without a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
