"""From the configuration's `[scorer]` to the scorers: which are in a service, and which in this process."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dispatcher_service.scorer_client import GrpcScorer
from dispatcher_service.scorer_targets import EMBEDDED, ScorerEndpoint, ScorerTarget
from dispatcher_service.scorers import MAIN, Observe, Predictor, Scorers
from pointsman.runtime.channels import ClientTls
from pointsman.runtime.starting import StartError


async def open_scorers(
    target: ScorerTarget, *, observe: Observe, trace_headers: Callable[[], Mapping[str, str]] = dict
) -> Scorers:
    """Open every scorer of the configuration. Services are not waited for: they are connected to when they are asked.

    Args:
        target: the main scorer and its canaries.
        observe: see `scorers.Observe`.
        trace_headers: see `GrpcScorer`.

    Raises:
        StartError: an embedded artefact cannot be served, or a certificate cannot be read.
    """
    endpoints = {MAIN: target.main, **{canary.name: canary.endpoint for canary in target.canaries}}
    return Scorers(
        target,
        {name: await _open(name, endpoint, trace_headers) for name, endpoint in endpoints.items()},
        observe=observe,
    )


async def _open(name: str, endpoint: ScorerEndpoint, trace_headers: Callable[[], Mapping[str, str]]) -> Predictor:
    if endpoint.address == EMBEDDED:
        return await _open_embedded(name, endpoint.artifact)
    try:
        return GrpcScorer(endpoint.address, tls=_tls(endpoint), trace_headers=trace_headers)
    except OSError as error:
        raise StartError(f"scorer {name!r}: {error.filename}: cannot be read: {error.strerror}") from error


async def _open_embedded(name: str, artifact: str) -> Predictor:
    try:
        # Here and not above: a dispatcher that asks a service has neither the packages nor the use for them.
        from dispatcher_service import embedded_scorer  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise StartError(
            f"scorer {name!r}: an embedded scorer needs the package {error.name!r}: pip install 'pointsman[embedded]'"
        ) from error
    try:
        # In a thread: it takes a second, in which signals are to be heard.
        return await asyncio.to_thread(embedded_scorer.open_embedded, artifact)
    except embedded_scorer.CannotEmbed as error:
        raise StartError(f"scorer {name!r}: {error}") from error


def _tls(endpoint: ScorerEndpoint) -> ClientTls | None:
    tls = endpoint.tls
    if tls is None:
        return None
    files: dict[str, Any] = {
        key: Path(path) if path else None
        for key, path in (("ca", tls.ca), ("certificate", tls.certificate), ("key", tls.key))
    }
    return ClientTls(**files, server_name=tls.server_name)
