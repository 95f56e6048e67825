"""`inferry status`: which server replies, whether it is ready, and which models it has."""

from argparse import Namespace
from dataclasses import asdict

from inferry_client.client import Client
from inferry_client.commands.models import models_table
from inferry_client.commands.watch import watch
from inferry_client.console.output import say, say_json, shown


def run(args: Namespace) -> int:
    """Print the server's state; the exit status is 0 only if it is ready. Watching ends with an interrupt."""
    with Client(args.server, timeout_s=args.timeout_s) as client:
        if args.watch:
            return watch(client, args)
        server, live, ready = client.server_metadata(), client.server_live(), client.server_ready()
        models = client.repository_index()
    if args.json:
        state = {"address": args.server, "name": server.name, "version": server.version, "live": live, "ready": ready}
        say_json(state | {"models": [asdict(model) for model in models]})
    else:
        who = shown(f"{server.name} {server.version}")
        say(f"{who} at {args.server}: {_say('live', live)}, {_say('ready', ready)}")
        say(models_table(models) if models else "no models")
    return 0 if ready else 1


def _say(word: str, true: bool) -> str:
    return word if true else f"not {word}"
