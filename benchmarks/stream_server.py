"""An upstream that streams: OpenAI's server-sent events, one write per chunk, as a model that generates does.

    python -m benchmarks.stream_server [--chunks 200] [--gap 0.004]

Prints `host:port` and serves until it is terminated. Every POST is answered with `chunks` pieces of content, `gap`
seconds apart, then the end and the usage.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Sequence

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _events(chunks: int) -> Iterator[bytes]:
    def event(choices: Sequence[object], **more: object) -> bytes:
        value = {
            "id": "chatcmpl-benchmark",
            "object": "chat.completion.chunk",
            "created": 1764000000,
            "model": "benchmark",
            "choices": choices,
            **more,
        }
        return f"data: {json.dumps(value)}\n\n".encode()

    for _ in range(chunks):
        yield event([{"index": 0, "delta": {"role": "assistant", "content": "word "}, "finish_reason": None}])
    yield event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    yield event([], usage={"prompt_tokens": 20, "completion_tokens": chunks, "total_tokens": 20 + chunks})
    yield b"data: [DONE]\n\n"


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, events: Sequence[bytes], gap: float
) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lengths = (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            length = next((int(line.partition(b":")[2]) for line in lengths), 0)
            await reader.readexactly(length)
            writer.write(_HEAD)
            for event in events:
                writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                await writer.drain()
                await asyncio.sleep(gap)
            writer.write(b"0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # The caller has what it wanted.
    finally:
        writer.close()


async def _serve(chunks: int, gap: float) -> None:
    events = list(_events(chunks))
    server = await asyncio.start_server(lambda r, w: _answer(r, w, events, gap), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"{host}:{port}", flush=True)
    await server.serve_forever()


def main(argv: list[str]) -> int:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=200)
    parser.add_argument("--gap", type=float, default=0.004)
    arguments = parser.parse_args(argv)
    asyncio.run(_serve(arguments.chunks, arguments.gap))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
