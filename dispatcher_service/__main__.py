"""The dispatcher as a process.

python -m dispatcher_service                       serve, with settings from the environment
python -m dispatcher_service check-config FILE     check a configuration file, offline
python -m dispatcher_service --help                list the settings
"""

import os
import sys
from pathlib import Path

from dispatcher_service import workers
from dispatcher_service.settings import PREFIX, Settings
from pointsman.runtime import entry

_ABOUT = """Pointsman's dispatcher: routes each conversation to the tenant's strong or weak model, calls it, and
accounts for its cost.

  python -m dispatcher_service                      serve
  python -m dispatcher_service check-config FILE    check a configuration file, offline"""


def main(argv: list[str]) -> int:
    """Run; returns the exit code."""
    match argv:
        case ["check-config", file]:
            return _check_config(Path(file))
        case ["check-config", *_]:
            print("error: write check-config FILE, with one file", file=sys.stderr)  # noqa: T201
            return 2
        case _:
            return entry.run(Settings, prefix=PREFIX, about=_ABOUT, argv=argv, environ=os.environ, main=_serve)


async def _serve(settings: Settings) -> int | None:
    if settings.workers > 1:
        return await workers.supervise(settings, os.environ)
    # The parent of workers holds no gRPC.
    from dispatcher_service import composition  # noqa: PLC0415

    await composition.serve(settings)
    return None


def _check_config(path: Path) -> int:
    from dispatcher_service.tenants import ConfigError, load_catalogue  # noqa: PLC0415

    try:
        catalogue = load_catalogue(path)
    except ConfigError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)  # noqa: T201
        return 1
    deployments = sum(1 for _ in catalogue.all_deployments())
    counts = f"{len(catalogue.tenants)} tenants, {len(catalogue.models)} models, {deployments} deployments"
    print(f"{path}: ok: {counts}")  # noqa: T201
    for tenant_id, policy in catalogue.tenants.items():
        if policy.ladder.top > 1:  # The file does not say the order.
            print(f"tenants.{tenant_id}: cheapest first: {', '.join(policy.ladder.models)}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
