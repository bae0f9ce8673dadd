"""Failures of the `openai` client, and of aiohttp beneath it, as our errors.

Messages of an upstream reach the caller only where it found fault with the request. Whether a failure may cost
something is decided here, on the safe side.
"""

import logging
import math
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Protocol

import aiohttp
import openai

from dispatcher_service import openai_http
from dispatcher_service.catalogue import Deployment
from dispatcher_service.credentials import Credentials
from dispatcher_service.errors import (
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from pointsman.runtime.logs import fields

_CALLERS_FAULT = (400, 413, 415, 422)
_OUR_FAULT = (301, 302, 303, 307, 308, 401, 403, 404, 405)
"""The configured address, model name or key is wrong: trying again changes nothing, another deployment may."""
_MAX_RETRY_AFTER = 3600.0
_SECONDS_BETWEEN_COMPLAINTS = 60.0

logger = logging.getLogger(__name__)


class Waited(Protocol):
    """A call's timeouts."""

    @property
    def what(self) -> str:
        """What did not come in time."""

    @property
    def out_of_time(self) -> bool:
        """Whether the timeout that passed was the caller's deadline and not the deployment's."""


class Translator:
    """Turns whatever the client raises into the hierarchy, keeping the cause."""

    def __init__(self, credentials: Credentials) -> None:
        """`credentials` are what must not be repeated to a caller."""
        self._credentials = credentials
        self._complained_at: dict[str, float] = {}

    @contextmanager
    def __call__(self, deployment: Deployment, waited: Waited) -> Iterator[None]:
        """Surrounds a call."""
        name = deployment.name
        try:
            yield
        except (aiohttp.ClientError, ssl.SSLError) as error:
            # Before the next: some of them are timeouts too.
            raise _connection_error(name, error) from error
        except TimeoutError as error:
            raise UpstreamTimeout(name, waited.what, may_be_billed=True, out_of_time=waited.out_of_time) from error
        except openai.RateLimitError as error:
            raise UpstreamRateLimited(name, _retry_after(error)) from error
        except openai.APIStatusError as error:
            raise self._status_error(deployment, error) from error
        except UpstreamError:
            raise
        except openai.APIError as error:
            # Whatever else the client finds.
            raise UpstreamUnavailable(name, "broke off with an error", may_be_billed=True) from error
        except openai_http.AnswerTooLong as error:
            what = f"answered with more than {openai_http.MAX_ANSWER_BYTES} bytes"
            raise UpstreamUnavailable(name, what, may_be_billed=True) from error
        except (OSError, ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError) as error:
            # Nobody validates an answer: one of another shape fails where we read it.
            raise UpstreamUnavailable(name, "answered what is no chat completion", may_be_billed=True) from error

    def _status_error(self, deployment: Deployment, error: openai.APIStatusError) -> UpstreamError:
        name = deployment.name
        if error.status_code in _CALLERS_FAULT:
            # The caller reads this, and an upstream may quote whatever it was sent.
            return UpstreamRejected(name, f"refused the request: {self._credentials.hide(deployment, error.message)}")
        if error.status_code in _OUR_FAULT:
            # Not the caller's fault, and what the upstream says of it is not the caller's to read.
            what = f"answered HTTP {error.status_code}"
            self._complain(name, error.status_code)
            return UpstreamUnavailable(name, what, may_be_billed=False, retryable=False)
        return UpstreamUnavailable(
            name,
            f"answered HTTP {error.status_code}",
            may_be_billed=False,
            asked_to_wait=_retry_after(error) or 0.0,
        )

    def _complain(self, name: str, status: int) -> None:
        """Tell operators, once a minute for each deployment."""
        now = time.monotonic()
        if now - self._complained_at.get(name, -math.inf) >= _SECONDS_BETWEEN_COMPLAINTS:
            self._complained_at[name] = now
            logger.error(
                "a deployment refuses us: look at its base_url, upstream_model and key",
                extra=fields(deployment=name, status=status),
            )


def _connection_error(name: str, error: Exception) -> UpstreamError:
    """What happened to the connection. Only one that was never made is certain to cost nothing."""
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return UpstreamUnavailable(name, "cannot be reached", may_be_billed=False)
    if isinstance(error, aiohttp.ServerTimeoutError):
        return UpstreamTimeout(name, "no answer in time", may_be_billed=True)
    return UpstreamUnavailable(name, "broke off the connection", may_be_billed=True)


def _retry_after(error: openai.APIStatusError) -> float | None:
    """Seconds that the upstream asks us to wait (RFC 9110, section 10.2.3, and OpenAI's `retry-after-ms`)."""
    headers = error.response.headers
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif headers["retry-after"][-1:].isdigit():
            seconds = float(headers["retry-after"])
        else:
            # A date: counted from the upstream's own clock, so that ours may differ.
            until, now = (parsedate_to_datetime(headers[name]) for name in ("retry-after", "date"))
            seconds = (until - now).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER) if math.isfinite(seconds) else None
