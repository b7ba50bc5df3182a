"""What the user typed, in the one form that Hydra needs: any spelling and any order mean the same run."""

from __future__ import annotations

from pathlib import Path

from mmcl.config.locate import GROUPS
from mmcl.config.method_files import method_files, register_method_file

# Hydra's flags whose value is an argument of its own: --cfg job, --config-dir my_conf.
FLAGS_WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-name", "-cn", "--config-dir", "-cd"}


def normalise(argv: list[str]) -> list[str]:
    """Bring command-line arguments into canonical form.

    ``+method=memo`` and ``method=memo`` become the same group choice; choices stand in the fixed order of the groups;
    any other ``key=value`` becomes ``++key=value``, so that an unknown key reaches our own check, which knows the
    nearest valid one. Of a key that is typed twice, the last value counts. Flags go first: Hydra's parser does not
    accept them between overrides. ``+method=my_file.py`` loads the file and chooses the method that it defines.
    """
    flags: list[str] = []
    choices: dict[str, str] = {}
    values: dict[str, str] = {}
    rest: list[str] = []
    for before, argument in zip(["", *argv], argv, strict=False):
        name, equals, value = argument.lstrip("+").partition("=")
        if argument.startswith("-") or before in FLAGS_WITH_VALUE:
            flags.append(argument)
        elif name in GROUPS and equals:
            choices[name] = _method_names(value) if name == "method" else value
        elif name == "method.preset" and equals:
            choices["preset"] = value  # it stands for many keys, so it is a group of its own
        elif not equals or name.startswith(("hydra", "~")) or "@" in name:
            rest.append(argument)
        else:
            values[name] = _quoted_path(value)
    chosen = [f"{group}={choices[group]}" for group in GROUPS if group in choices]
    return [*flags, *chosen, *(f"++{name}={values[name]}" for name in sorted(values)), *rest]


def flags_of_a_job(argv: list[str]) -> list[str]:
    """Return the flags among normalised arguments that hold for each job of a sweep, such as ``--config-dir mine``."""
    flags = []
    for before, argument in zip(["", *argv], argv, strict=False):
        if not argument.startswith("-") and before not in FLAGS_WITH_VALUE:
            break
        flags.append(argument)
    return [flag for flag in flags if flag not in ("-m", "--multirun")]


def documented(overrides: list[str]) -> list[str]:
    """Return normalised overrides as the documentation spells them: ``+method=memo method.lr=0.1``."""
    files = method_files()
    spelled = []
    for override in overrides:
        name, _, value = override.lstrip("+").partition("=")
        value = str(files.get(value, value)) if name == "method" else value
        if value[:2] in ("'/", "'~"):
            value = value[1:-1].replace("\\'", "'")  # normalising quotes it again
        spelled.append(f"{'+' if name in ('method', 'experiment') else ''}{name}={value}")
    return spelled


def _quoted_path(value: str) -> str:
    """Quote a path, whose characters mean something else to Hydra's parser: ``~`` is an error there."""
    is_path = value.startswith(("~", "/")) and "," not in value
    return "'{}'".format(value.replace("'", "\\'")) if is_path else value


def _method_names(choice: str) -> str:
    return ",".join(register_method_file(Path(name)) if name.endswith(".py") else name for name in choice.split(","))
