"""Asks a gRPC service whether it serves: `python -m pointsman.runtime.probe HOST:PORT [SERVICE]`.

For container runtimes without gRPC probes of their own (Kubernetes has them). Exit code 0 means SERVING.
"""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT = 2.0


def main(argv: list[str]) -> int:
    """Probe; returns the exit code: 0 SERVING, 1 anything else, 2 bad arguments."""
    match argv:
        case [address]:
            service = ""
        case [address, service]:
            pass
        case _:
            print("error: write HOST:PORT and, if you like, a service's full name", file=sys.stderr)  # noqa: T201
            return 2
    with grpc.insecure_channel(address) as channel:
        try:
            response = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT
            )
        except grpc.RpcError as error:
            print(f"error: {address}: {error.code().name}", file=sys.stderr)  # noqa: T201
            return 1
    serving = response.status == health_pb2.HealthCheckResponse.SERVING
    if not serving:
        print(f"error: {address}: not serving", file=sys.stderr)  # noqa: T201
    return 0 if serving else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
