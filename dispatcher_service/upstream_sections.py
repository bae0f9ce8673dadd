"""The configuration file's `[[deployments]]` and `[retries]`: what each key takes, and the values that they become."""

import re
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dispatcher_service.catalogue import Api, Deployment, RetryPolicy, Value

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
_Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_Path = Annotated[str, Field(min_length=1)]

_BASE_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#@]*)?")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OWN_HEADERS = frozenset({"authorization", "api-key", "content-type", "content-length", "host", "accept", "connection"})
"""Headers that the key's settings or the HTTP client make."""
_SECRET_NAME = re.compile(r"key|token|secret|password|auth|credential", re.IGNORECASE)


class Section(BaseModel):
    """Base of all sections: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ValueSection(Section):
    """A header's value that does not stand in the file."""

    env: _Variable | None = None
    file: _Path | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("set exactly one of env and file")
        return self


class DeploymentSection(Section):
    """One of `[[deployments]]`."""

    name: Name
    model: Name
    base_url: str
    upstream_model: Annotated[str, Field(min_length=1)] | None = None
    api: Api = Api.OPENAI
    api_version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+$")] | None = None
    api_key_env: _Variable | None = None
    api_key_file: _Path | None = None
    headers: dict[str, str | ValueSection] = {}
    max_tokens_parameter: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    weight: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 1.0
    max_concurrency: Annotated[int, Field(ge=1, le=100_000)] | None = None
    connect_timeout: Seconds = 5.0
    first_token_timeout: Seconds = 60.0
    idle_timeout: Seconds = 30.0
    timeout: Seconds = 120.0
    breaker_failures: Annotated[int, Field(ge=1, le=1000)] = 5
    breaker_cooldown: Seconds = 10.0

    @field_validator("base_url")
    @classmethod
    def _base_url(cls, url: str) -> str:
        # A user or a query may be a secret, which has no place in the file.
        if not _BASE_URL.fullmatch(url):
            raise ValueError("write an http(s) URL without user, query and fragment")
        return url

    @field_validator("headers")
    @classmethod
    def _headers(cls, headers: dict[str, str | ValueSection]) -> dict[str, str | ValueSection]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot be a header's name")
            if name.lower() in _OWN_HEADERS:
                raise ValueError(f"{name!r} is made by the dispatcher: remove it, or use api_key_env or api_key_file")
            if isinstance(value, str) and _SECRET_NAME.search(name):
                raise ValueError(
                    f"{name!r} sounds secret: write {{ env = ... }} or {{ file = ... }} instead of its value"
                )
        return headers

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.api_key_env is not None and self.api_key_file is not None:
            raise ValueError("set one of api_key_env and api_key_file")
        if (self.api is Api.AZURE) != (self.api_version is not None):
            raise ValueError('api = "azure" and api_version go together: set both or neither')
        return self


class RetriesSection(Section):
    """`[retries]`."""

    tries: Annotated[int, Field(ge=1, le=10)] = 2
    max_attempts: Annotated[int, Field(ge=1, le=50)] = 6
    backoff: Seconds = 0.1
    max_backoff: Seconds = 5.0


def freeze_deployments(sections: Iterable[DeploymentSection]) -> dict[str, tuple[Deployment, ...]]:
    """By the model that they serve, in the file's order."""
    by_model: dict[str, tuple[Deployment, ...]] = {}
    for section in sections:
        by_model[section.model] = (*by_model.get(section.model, ()), _freeze(section))
    return by_model


def freeze_retries(section: RetriesSection) -> RetryPolicy:
    """The policy."""
    return RetryPolicy(
        tries=section.tries,
        max_attempts=section.max_attempts,
        backoff=section.backoff,
        max_backoff=section.max_backoff,
    )


def _freeze(section: DeploymentSection) -> Deployment:
    return Deployment(
        name=section.name,
        model=section.model,
        base_url=section.base_url,
        upstream_model=section.upstream_model or section.model,
        api=section.api,
        api_version=section.api_version or "",
        api_key=_api_key(section),
        headers=tuple((name.lower(), _value(value)) for name, value in section.headers.items()),
        max_tokens_parameter=section.max_tokens_parameter,
        weight=section.weight,
        max_concurrency=section.max_concurrency,
        connect_timeout=section.connect_timeout,
        first_token_timeout=section.first_token_timeout,
        idle_timeout=section.idle_timeout,
        timeout=section.timeout,
        breaker_failures=section.breaker_failures,
        breaker_cooldown=section.breaker_cooldown,
    )


def _api_key(section: DeploymentSection) -> Value | None:
    if section.api_key_env is None and section.api_key_file is None:
        return None
    return Value(env=section.api_key_env or "", file=section.api_key_file or "")


def _value(value: str | ValueSection) -> Value:
    if isinstance(value, str):
        return Value(text=value)
    return Value(env=value.env or "", file=value.file or "")
