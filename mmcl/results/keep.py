"""Keep results: copies of ``result.json`` without a path of the machine that made them, fit for a repository."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from mmcl.errors import UserError
from mmcl.results.store import Result, find_results
from mmcl.results.traces import pictured, trace_files

OF_THE_MACHINE = ("paths.", "trainer.devices", "force", "eval_only")


def keep_results(runs: Path, folder: Path) -> list[Path]:
    """Copy every finished result below ``runs`` to ``folder/<method>-<identity>/``, with what its pictures need.

    That is its confusion matrices and, of an online stream, the traces at the start, in the middle and at the end.

    Raises:
        UserError: there is no finished result.
    """
    results = [result for result in find_results(runs)[0] if result.finished]
    if not results:
        raise UserError(
            f"{runs}: no finished result below it. Name the folder of your runs, such as: mmcl keep runs kept"
        )
    return [_keep(result, folder) for result in results]


def _keep(result: Result, folder: Path) -> Path:
    kept = folder / f"{result.name_of('method')}-{result.identity}"
    kept.mkdir(parents=True, exist_ok=True)
    content = without_paths(json.loads(result.path.read_text()))
    path = kept / "result.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    for confusion in result.path.parent.glob("confusion_*.csv"):
        (kept / confusion.name).write_text(confusion.read_text())
    for trace in pictured(list(trace_files(result.path.parent).values())):
        copy = kept / trace.relative_to(result.path.parent)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(trace.read_bytes())
    return path


def without_paths(content: dict[str, Any]) -> dict[str, Any]:
    """Return a result whose configuration and command name no folder of a machine."""
    config = {key: value for key, value in content["config"].items() if key != "paths"}
    config["benchmark"] = {key: _name(value) for key, value in config["benchmark"].items() if key != "data"}
    for group in {"method", "backbone"} & set(config):
        config[group] = {key: _name(value) for key, value in config[group].items()}
    words = [word for word in shlex.split(content["command"]) if not word.lstrip("+").startswith(OF_THE_MACHINE)]
    command = shlex.join(
        f"{key}={_name(value)}" for key, value in (word.split("=", 1) for word in words if "=" in word)
    )
    return {**content, "config": config, "command": f"python -m mmcl.run {command}"}


def _name(value: Any) -> Any:
    """Return the last part of an absolute path, quoted or not, and anything else as it is."""
    bare = value.strip("'\"") if isinstance(value, str) else ""
    return Path(bare).name if bare.startswith(("/", "~")) else value
