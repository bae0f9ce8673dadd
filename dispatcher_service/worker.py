"""One of several dispatchers behind one port: `python -m dispatcher_service.worker FD`, started by `workers.supervise`.

Its settings are the environment's; FD is its end of the line to the parent.
"""

import os
import sys
from functools import partial

from dispatcher_service import composition
from dispatcher_service.settings import PREFIX, Settings
from pointsman.runtime import entry
from pointsman.runtime.workers.link import WorkerEnd


def main(argv: list[str]) -> int:
    """Run; returns the exit code."""
    [descriptor] = argv
    serve = partial(composition.serve, parent=WorkerEnd(int(descriptor)))
    return entry.run(Settings, prefix=PREFIX, about="", argv=[], environ=os.environ, main=serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
