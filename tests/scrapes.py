"""What a service's metrics endpoint says."""

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.processes import ServiceProcess


def scrape(process: ServiceProcess, name: str) -> list[tuple[dict[str, str], float]]:
    """The labels and values of every sample of that name."""
    with urllib.request.urlopen(f"http://{process.metrics}/metrics", timeout=10) as response:
        text = response.read().decode()
    return [
        (dict(sample.labels), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    ]
