"""`inferry models`: the versions that a server has; and the model that a command means without `--model`."""

from argparse import Namespace
from dataclasses import asdict

from inferry_client.client import Client
from inferry_client.commands.errors import CommandError
from inferry_client.console.output import say, say_json
from inferry_client.console.printing import table
from inferry_client.results import ModelStatus


def run(args: Namespace) -> int:
    """Print every version of the server's repository."""
    with Client(args.server, timeout_s=args.timeout_s) as client:
        models = client.repository_index()
    if args.json:
        say_json([asdict(model) for model in models])
    else:
        say(models_table(models))
    return 0


def models_table(models: tuple[ModelStatus, ...]) -> str:
    """The versions as a table."""
    rows = [(model.name, model.version, model.state, model.reason) for model in models]
    return table(("NAME", "VERSION", "STATE", "REASON"), rows)


def choose_model(client: Client, asked: str | None) -> str:
    """The model a command means: the one asked for, or the only one that is ready.

    Raises:
        CommandError: none was asked for, and not exactly one is ready.
    """
    if asked:
        return asked
    ready = sorted({model.name for model in client.repository_index(ready_only=True) if model.ready})
    if not ready:
        raise CommandError(f"no model is ready at {client.address}; `inferry models` says why")
    if len(ready) > 1:
        raise CommandError(f"{client.address} serves {', '.join(ready)}; choose one with --model")
    return ready[0]
