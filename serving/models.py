"""The command that shows and changes the registry: `python -m serving.models add | list | remove`."""

import argparse
import sys
from pathlib import Path

from serving.registry import Model, open_registry
from training.errors import EncoreError


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serving.models", description="The models a server answers with.")
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="register a checkpoint")
    add.add_argument("source", type=Path, help="a run folder, or its checkpoint folder")
    add.add_argument("--name", help="a further name to call the model by")
    add.add_argument("--replace", action="store_true", help="remove the model that has the name now")
    commands.add_parser("list", help="show the registered models")
    remove = commands.add_parser("remove", help="remove a model")
    remove.add_argument("model", metavar="NAME_OR_ID")
    return parser.parse_args()


def _line(model: Model) -> str:
    kind = "multi-label" if model.problem_type == "multi_label_classification" else "single-label"
    what = f"{kind}  {model.labels} labels" if model.task == "classify" else model.task
    created = model.created_at.isoformat(timespec="seconds")
    return f"{model.public_name}  {model.name or '-'}  {what}  {created}\n"


def main() -> None:
    """Run one command; a mistake is one line on stderr and status 1."""
    arguments = _parse()
    try:
        registry = open_registry()
        match arguments.command:
            case "add":
                model = registry.add(arguments.source, arguments.name, replace=arguments.replace)
                sys.stdout.write(f"id:    {model.id}\nmodel: {model.public_name}\n")
                sys.stdout.write(f"name:  {model.name}\n" if model.name else "")
            case "list":
                sys.stdout.writelines(_line(model) for model in registry.list())
            case _:
                sys.stdout.write(f"removed {registry.remove(arguments.model).public_name}\n")
    except EncoreError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
