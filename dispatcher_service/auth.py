"""Who calls. This version trusts the network: callers name their tenant in the call's metadata."""

from collections.abc import Sequence

from dispatcher_service.errors import Unauthenticated

TENANT_KEY = "x-pointsman-tenant"
"""Metadata entry with the tenant's id."""

DEFAULT_TENANT = "default"
"""The tenant of calls that name none, in development."""


class TrustedMetadata:
    """Takes the tenant from the metadata, as it stands there."""

    def __init__(self, *, default_tenant: str | None) -> None:
        """`default_tenant` answers for calls that name none; with `None` they are refused."""
        self._default = default_tenant

    def tenant_of(self, metadata: Sequence[tuple[str, str | bytes]]) -> str:
        """The tenant's id. Whether there is such a tenant is not known here.

        Raises:
            Unauthenticated: none is named, or several are.
        """
        named = [value for key, value in metadata if key == TENANT_KEY]
        if not named and self._default is not None:
            return self._default
        if len(named) != 1 or not isinstance(named[0], str):
            raise Unauthenticated
        return named[0]
