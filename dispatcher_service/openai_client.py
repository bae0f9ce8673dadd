"""One `openai` client per deployment: its URL form, its headers, and the client's surprises switched off.

Switched off are its retries (ours to decide and to count) and the account headers that it takes from the environment;
what it sends with (`openai_http`) follows no redirect with our key, and reads no answer without end.
"""

from collections.abc import Mapping
from urllib.parse import quote

import openai
from openai import AsyncOpenAI

from dispatcher_service.catalogue import Api, Deployment
from dispatcher_service.openai_http import HttpClient


def connect(deployment: Deployment) -> AsyncOpenAI:
    """A client with a connection pool of its own. It connects when it is first used."""
    base_url, query = deployment.base_url, {}
    if deployment.api is Api.AZURE:
        # https://learn.microsoft.com/azure/ai-foundry/openai/reference
        base_url = f"{base_url.rstrip('/')}/openai/deployments/{quote(deployment.upstream_model, safe='')}"
        query = {"api-version": deployment.api_version}
    client = AsyncOpenAI(
        base_url=base_url,
        default_query=query,
        # Keys come with each call, so that they can change; the client wants one at start.
        api_key="none",
        max_retries=0,
        timeout=openai.Timeout(deployment.timeout, connect=deployment.connect_timeout),
        http_client=HttpClient(base_url),
    )
    # The client takes these from OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS, and would send them to
    # every company we call. The last has no public way to clear it; a test holds that this one works.
    client.organization = None
    client.project = None
    client._custom_headers = {}
    return client


def call_headers(ours: Mapping[str, str]) -> dict[str, str | openai.Omit]:
    """The headers of a call, with the client's stand-in for a key left out where there is none of ours."""
    return {"authorization": openai.Omit(), **ours}
