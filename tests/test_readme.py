"""What the README tells people to type works: its example method runs, its commands compose."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mmcl.config.compose import compose_sweep
from mmcl.engine.assemble import run

README = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = [line.split("#")[0].strip() for line in re.findall(r"^    (python -m mmcl\.run .*)$", README, re.MULTILINE)]


@pytest.mark.parametrize("command", [command for command in COMMANDS if ".py" not in command])
def test_every_command_composes(command: str) -> None:
    arguments = [word for word in shlex.split(command)[3:] if word != "-m"]
    assert compose_sweep(arguments)


def test_the_example_method_runs_from_its_one_file(tmp_path: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    file = tmp_path / "smooth_replay.py"
    file.write_text(code)
    tiny = ["backbone.depth=8", "backbone.width=4", "benchmark.increment=5", "trainer=cpu", f"paths.runs={tmp_path}"]
    short = ["method.first_task.epochs=1", "method.later_tasks.epochs=1"]
    (config,) = compose_sweep([f"+method={file}", "method.smoothing=0.2", *tiny, *short])
    assert config.method.smoothing == 0.2
    result = run(config, "")
    assert result.parts[-5:-3] == ("digits", "smooth_replay")
    assert '"status": "finished"' in result.read_text()
