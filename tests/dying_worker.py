"""`python -m tests.dying_worker FD`: says that it serves, and ends with 3; or does not start, and ends with 4."""

import os
import sys

from pointsman.runtime.workers.link import WorkerEnd

if __name__ == "__main__":
    if "DOES_NOT_START" in os.environ:
        sys.exit(4)
    WorkerEnd(int(sys.argv[1])).serving()
    sys.exit(3)
