"""Composition root: `python -m apps.local_upstream`."""

import os
import sys

from apps.local_upstream.server import PREFIX, Settings, serve
from pointsman.runtime import entry

ABOUT = """\
Pointsman's local upstream: SmolLM2-135M-Instruct behind an OpenAI-compatible HTTP server, for demonstrations and tests
without an API key. POST /v1/chat/completions (streaming included), GET /v1/models, GET /health. It answers every model
name with its one model, and says so in the answer's `model`."""


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    return entry.run(Settings, prefix=PREFIX, about=ABOUT, argv=sys.argv[1:], environ=os.environ, main=serve)


if __name__ == "__main__":
    sys.exit(main())
