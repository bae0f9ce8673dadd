"""Calls that arrive when they arrive: a Poisson process that does not wait for answers, from a process of its own.

    python -m benchmarks.open_loop HOST:PORT --tenant T --rate 500 --seconds 30 --deadline 1

A closed loop asks less often when the server is slow, and so hides the wait ("coordinated omission"). Here each latency
counts from the moment at which the call was due. Prints one line of JSON.
"""

import argparse
import asyncio
import json
import random
import resource
import sys
import time

import grpc
import grpc.aio

from benchmarks import prompts
from pointsman.dispatcher.v1 import dispatcher_pb2
from tests.dispatchers import chat

_METHOD = "/pointsman.dispatcher.v1.DispatcherService/Complete"
_CHANNELS = 8


async def _offer(address: str, tenant: str, rate: float, seconds: float, deadline: float, seed: int) -> dict[str, object]:
    message = dispatcher_pb2.CompleteRequest(chat=chat(prompts.TYPICAL)).SerializeToString()
    metadata = (("x-pointsman-tenant", tenant),)
    # Several connections, as several callers have; bytes in and out, to leave the core to more calls.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(_CHANNELS)]
    methods = [channel.unary_unary(_METHOD) for channel in channels]
    draw = random.Random(seed)
    done: list[tuple[float, float, str]] = []
    late = 0.0

    async def call(number: int, due: float) -> None:
        try:
            await methods[number % _CHANNELS](message, metadata=metadata, timeout=deadline)
            code = "OK"
        except grpc.aio.AioRpcError as error:
            code = error.code().name
        done.append((due, time.monotonic() - due, code))

    began = time.monotonic()
    due, number, running = began, 0, set()
    while due < began + seconds:
        pause = due - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)
        else:
            late = max(late, -pause)
            await asyncio.sleep(0)
        task = asyncio.ensure_future(call(number, due))
        running.add(task)
        task.add_done_callback(running.discard)
        number += 1
        due += draw.expovariate(rate)
    await asyncio.gather(*running)
    for channel in channels:
        await channel.close()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "offered": number,
        "rate": rate,
        "seconds": seconds,
        "deadline": deadline,
        "generator_cpu": (usage.ru_utime + usage.ru_stime) / (time.monotonic() - began),
        "generator_late": late,
        "calls": [(round(at - began, 4), round(took, 5), code) for at, took, code in done],
    }


def main(argv: list[str]) -> int:
    """Offer the load and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--tenant", default="")
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--deadline", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    print(json.dumps(asyncio.run(_offer(**vars(given)))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
