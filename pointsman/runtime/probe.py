"""Asks a gRPC service whether it serves: `python -m pointsman.runtime.probe HOST:PORT`. Exit code 0 means SERVING.

For container runtimes without gRPC probes, and for mutual TLS, which Kubernetes' own probes do not speak.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pointsman.runtime.channels import ClientTls, open_sync_channel


def main(argv: Sequence[str]) -> int:
    """Probe; returns the exit code: 0 SERVING, 1 anything else; 2 bad arguments."""
    parser = argparse.ArgumentParser(prog="python -m pointsman.runtime.probe", description=__doc__)
    parser.add_argument("address", help="host:port of the gRPC server")
    parser.add_argument("--service", default="", help="full name of one gRPC service (default: all)")
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds (default: 2)")
    parser.add_argument("--ca", type=Path, help="PEM file: who signed the server's certificate; turns TLS on")
    parser.add_argument("--certificate", type=Path, help="PEM file: our own certificate")
    parser.add_argument("--key", type=Path, help="PEM file: its key")
    parser.add_argument("--server-name", default="", help="the name in the server's certificate")
    arguments = parser.parse_args(argv)
    try:
        answer = _status(arguments)
    except (OSError, ValueError) as error:
        answer = str(error)
    if answer == "SERVING":
        return 0
    print(f"error: {arguments.address}: {answer}", file=sys.stderr)  # noqa: T201
    return 1


def _status(arguments: argparse.Namespace) -> str:
    tls = None
    if arguments.ca is not None:
        tls = ClientTls(
            ca=arguments.ca,
            certificate=arguments.certificate,
            key=arguments.key,
            server_name=arguments.server_name,
        )
    with open_sync_channel(arguments.address, tls=tls) as channel:
        request = health_pb2.HealthCheckRequest(service=arguments.service)
        try:
            response = health_pb2_grpc.HealthStub(channel).Check(request, timeout=arguments.timeout)
        except grpc.RpcError as error:
            return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
