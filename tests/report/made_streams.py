"""Results and traces of online streams as the engine writes them, made for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmcl.results.store import Result, find_results
from tests.report.made import content, write

STREAM_RUN = ("+method=memory_head", "benchmark=modes2d")
CLASSES = 3
GRID = 6
UNITS = 4


def stream_content(command: str = "", distributions: int = 4, last: float = 0.7, **changes: Any) -> dict[str, Any]:
    """Return a ``result.json`` of a stream of three classes, whose validation samples are of its first half."""

    def figures(count: int, last: float) -> dict[str, Any]:
        return {
            "accuracy_matrix": [[0.9 if met <= after else 0.1 for met in range(count)] for after in range(count)],
            "accuracy_curve": [0.9] * (count - 1) + [last],
            "average_incremental_accuracy": 0.8,
            "last_accuracy": last,
            "forgetting": 0.1,
            "backward_transfer": 0.0,
            "forward_transfer": 0.25,
        }

    sizes = {"model_bytes": 0, "head_bytes": 512, "memory_bytes": 0, "exemplars": 0}
    stages = {"stage": "stream", "seconds": 0.5, "images_per_second": 500.0}
    made = {
        "config": {
            "seed": 0,
            "method": {"name": "memory_head"},
            "benchmark": {"name": "modes2d", "evaluate": ["test", "validation"]},
        },
        "readouts": {
            "head": figures(distributions, last),
            "head_validation": figures(max(distributions // 2, 1), 0.9876),
        },
        "task_sizes": [CLASSES] * distributions,
        "task_names": [f"part {index}" for index in range(distributions)],
        "class_names": [str(label) for label in range(CLASSES)],
        "bytes": [{"task": index, **sizes} for index in range(distributions)],
        "timing": {"wall_seconds": 2.0, "stages": [{"task": index, **stages} for index in range(distributions)]},
    }
    return content(command or " ".join(["python -m mmcl.run", *STREAM_RUN]), **{**made, **changes})


def trace_values(windows: int) -> dict[str, Any]:
    """Return what is traced after some windows: the unit of the window has won 10 times more in each."""
    mu = np.zeros((1, UNITS), np.float32)
    for window in range(windows):
        mu[0, window % UNITS] += 10
    keys = np.stack([np.linspace(-0.5, 0.5, UNITS), np.full(UNITS, 0.01 * windows)], axis=1)
    places = np.linspace(-1, 1, GRID, dtype=np.float32)
    return {
        "regions": np.arange(GRID * GRID, dtype=np.uint8).reshape(GRID, GRID) % CLASSES,
        "xs": places,
        "ys": places,
        "keys": keys.astype(np.float32)[None],
        "mu": mu,
        "scrambling_count": np.array([2 * windows]),
    }


def write_trace(run: Path, windows: int, **changes: Any) -> Path:
    """Write the trace of a run after some windows; a change to None leaves an array out."""
    path = run / "traces" / f"{windows:03d}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {**trace_values(windows), **changes}
    np.savez_compressed(path, **{name: value for name, value in values.items() if value is not None})
    return path


def write_stream(run: Path, distributions: int = 4, **changes: Any) -> Result:
    """Write a result with its traces, and read it back."""
    write(run, stream_content(distributions=distributions, **changes))
    (run / "confusion_head.csv").write_text("5,0,1\n0,6,0\n1,1,4\n")
    (run / "confusion_head_validation.csv").write_text("1,0,0\n0,1,0\n0,0,1\n")
    for windows in range(distributions + 1):
        write_trace(run, windows)
    (found,), problems = find_results(run)
    assert not problems
    return found
