"""The `pointsman` command. Each group of subcommands lives beside what it runs and is added here, lazily."""

import argparse
import importlib
import sys

_GROUPS = (
    # module with `add_commands(subparsers)`, and the pip extra that its commands need
    ("apps.demo.cli", "scorer,dispatcher,demo"),
    ("apps.playground.cli", "scorer,dispatcher,demo,playground"),
    ("training.cli", "evaluate"),
    ("training.simulate_cli", "evaluate"),
    ("dispatcher_service.ledger.cli", "dispatcher,redis"),
    ("dispatcher_service.records.cli", "dispatcher,redis"),
    ("dispatcher_service.cli", "dispatcher"),
    ("pointsman.budget_cli", "dispatcher"),
)
_OURS = ("pointsman", "scorer_service", "dispatcher_service", "training", "apps")


def build_parser() -> tuple[argparse.ArgumentParser, dict[str, str]]:
    """All subcommands, and the extra that each needs: their modules import what they run only when it runs."""
    parser = argparse.ArgumentParser(
        prog="pointsman", description="Routes LLM traffic between a strong and a weak model."
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    extras: dict[str, str] = {}
    for module, extra in _GROUPS:
        importlib.import_module(module).add_commands(subparsers)
        extras |= {command: extra for command in subparsers.choices if command not in extras}
    return parser, extras


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; returns its exit code."""
    parser, extras = build_parser()
    arguments = parser.parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in _OURS:
            raise
        extra = extras[arguments.command]
        print(
            f"error: pointsman {arguments.command} needs the package {missing!r}: pip install 'pointsman[{extra}]'",
            file=sys.stderr,
        )
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
