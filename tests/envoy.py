"""Real Envoy with the shipped configuration, for tests and benchmarks."""

import contextlib
import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.processes import ROOT, eventually


class Envoy:
    """Envoy with the shipped configuration, but for addresses, certificates and, if given, the rate limit."""

    def __init__(
        self,
        folder: Path,
        *,
        executable: str,
        dispatchers: list[str],
        scorers: list[str],
        limit: tuple[int, str] | None = None,
    ) -> None:
        """Start it and wait until it balances.

        Args:
            folder: for its configuration, certificate and log.
            executable: of Envoy.
            dispatchers: addresses.
            scorers: likewise.
            limit: calls in each interval (`1s`, `0.1s`), and none beyond.
        """
        config = yaml.safe_load(shipped(folder))
        config["admin"]["address"]["socket_address"]["port_value"] = 0
        for listener in config["static_resources"]["listeners"]:
            listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
        for cluster in config["static_resources"]["clusters"]:
            addresses = {"dispatchers": dispatchers, "scorers": scorers}[cluster["name"]]
            cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": [_endpoint(address) for address in addresses]}]
        if limit is not None:
            _rate_limit(config)["token_bucket"] = {
                "max_tokens": limit[0],
                "tokens_per_fill": limit[0],
                "fill_interval": limit[1],
            }
        path = folder / "envoy.yaml"
        path.write_text(yaml.safe_dump(config))
        admin = folder / "admin"
        admin.unlink(missing_ok=True)
        self._log = (folder / "envoy.log").open("w")
        arguments = ["-c", str(path), "--admin-address-path", str(admin), "--concurrency", "1", "--use-dynamic-base-id"]
        self._process = subprocess.Popen([executable, *arguments], stdout=self._log, stderr=self._log)
        for _ in eventually(30):
            assert self._process.poll() is None, (folder / "envoy.log").read_text()
            if admin.exists() and admin.read_text():
                break
        self._admin = admin.read_text()
        self.certificate = (folder / "tls.crt").read_bytes()
        for _ in eventually(30):
            with contextlib.suppress(OSError):
                if self._get("/ready").strip() == "LIVE" and self._healthy() == len(dispatchers) + len(scorers):
                    break
        self.ports = {
            listener["name"]: listener["local_address"]["socket_address"]["port_value"]
            for listener in json.loads(self._get("/listeners?format=json"))["listener_statuses"]
        }

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self._admin}{path}", timeout=5) as response:
            text: str = response.read().decode()
            return text

    def _healthy(self) -> int:
        return sum(line.endswith("::health_flags::healthy") for line in self._get("/clusters").splitlines())

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()


def _endpoint(address: str) -> Any:
    host, _, port = address.rpartition(":")
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}


def _rate_limit(config: Any) -> Any:
    (callers,) = [each for each in config["static_resources"]["listeners"] if each["name"] == "callers"]
    filters = callers["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    (limit,) = [each["typed_config"] for each in filters if each["name"].endswith("local_ratelimit")]
    return limit


def shipped(folder: Path) -> str:
    """The shipped configuration, with its files in a folder: a fresh certificate, and the contract."""
    _make_certificate(folder)
    descriptors = folder / "pointsman.pb"
    done = subprocess.run(
        ["make", "--silent", "-C", str(ROOT), "descriptors", f"DESCRIPTORS={descriptors}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = (ROOT / "deploy" / "envoy" / "envoy.yaml").read_text()
    return text.replace("/etc/envoy/tls", str(folder)).replace("/etc/envoy/pointsman.pb", str(descriptors))


def _make_certificate(folder: Path) -> None:
    """A key and a certificate for localhost, as the configuration names them."""
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    subprocess.run([*command, *names, *files], check=True, capture_output=True, timeout=30)
