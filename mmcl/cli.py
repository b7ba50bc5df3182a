"""The command ``mmcl``: look things up, check, run, reproduce a table, write a report."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from mmcl.commands.check import add_check_command
from mmcl.commands.compare import add_compare_command
from mmcl.commands.data import add_data_command
from mmcl.commands.exemplars import add_exemplars_command
from mmcl.commands.features import add_features_commands
from mmcl.commands.index import add_index_command
from mmcl.commands.look import add_look_commands
from mmcl.commands.memory import add_memory_command
from mmcl.commands.readme import add_readme_command
from mmcl.commands.released import add_released_command
from mmcl.commands.report import add_report_commands
from mmcl.commands.reproduce import add_reproduce_commands
from mmcl.commands.verify import add_verify_command
from mmcl.errors import UserError

# In the order of the help.
VERBS = (
    add_look_commands,
    add_check_command,
    add_reproduce_commands,
    add_report_commands,
    add_compare_command,
    add_index_command,
    add_readme_command,
    add_features_commands,
    add_data_command,
    add_memory_command,
    add_exemplars_command,
    add_released_command,
    add_verify_command,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Errors that a user can mend end in exit code 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["run"]:
        return _run(given[1:])
    parser = _parser()
    parsed, further = parser.parse_known_args(given)
    # argparse takes no overrides behind an option such as --runs
    if further and hasattr(parsed, "overrides") and all("=" in word and word[0] != "-" for word in further):
        parsed.overrides = [*parsed.overrides, *further]
    elif further and hasattr(parsed, "names") and all(word[0] != "-" for word in further):
        parsed.names = [*parsed.names, *further]
    elif further:
        parser.error(f"unknown arguments: {' '.join(further)}")
    try:
        code = parsed.action(parsed)
    except UserError as error:
        sys.stderr.write(f"mmcl: {error}\n")
        sys.exit(error.exit_code)
    sys.exit(code or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mmcl", description="Experiments on memory-based visual classification.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("run", help="the same as python -m mmcl.run", add_help=False)
    for add in VERBS:
        add(commands)
    return parser


def _run(arguments: list[str]) -> None:
    """Become ``python -m mmcl.run``: Lightning starts further processes by the command line that it finds."""
    os.execv(sys.executable, [sys.executable, "-m", "mmcl.run", *arguments])


if __name__ == "__main__":
    main()
