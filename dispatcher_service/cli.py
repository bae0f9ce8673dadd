"""`pointsman key`: what operators do for the dispatcher from a shell."""

import argparse
import datetime


def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this group to `pointsman`."""
    key = subparsers.add_parser("key", help="API keys of tenants and admins")
    actions = key.add_subparsers(required=True, metavar="ACTION", dest="action")
    new = actions.add_parser(
        "new",
        help="make an API key",
        description="Makes an API key. The first line is the key, shown this once: hand it to the caller. The second "
        "goes into the configuration file, under [tenants.NAME] or [admins.NAME]; it holds a hash, no secret.",
    )
    new.add_argument("--days", type=_days, metavar="N", help="the key's life, in days; default: it does not expire")
    new.set_defaults(run=_new)


def _new(arguments: argparse.Namespace) -> int:
    from dispatcher_service.api_keys import new_key

    key = new_key()
    expires = ""
    if arguments.days is not None:
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=arguments.days)
        expires = f", expires = {end:%Y-%m-%d}"
    print(key.text)
    print(f'api_keys = [{{ id = "{key.id}", sha256 = "{key.sha256}"{expires} }}]')
    return 0


def _days(text: str) -> int:
    try:
        days = int(text)
    except ValueError:
        days = 0
    if not 1 <= days <= 36_500:
        raise argparse.ArgumentTypeError(f"{text!r}: write a whole number of days, at least 1")
    return days
