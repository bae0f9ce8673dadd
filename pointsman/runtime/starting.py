"""What is known before a process serves: that it cannot start, and where it is to listen."""


class StartError(Exception):
    """The process cannot start. The message is one line that says what to do."""


def split_address(address: str) -> tuple[str, int]:
    """`host:port` to its parts; an IPv6 host stands in brackets.

    Raises:
        StartError: it is not `host:port`.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise StartError(f"{address!r} is not an address: write host:port, for example 127.0.0.1:50051")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """True if `host:port` can be reached from this machine only."""
    host, _ = split_address(address)
    return host in ("localhost", "::1") or host.startswith("127.")
