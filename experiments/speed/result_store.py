"""Thousands of results: how long the index, a query, the report and a comparison of two take.

Run: OMP_NUM_THREADS=1 python experiments/speed/result_store.py --results 5000
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.report.page import write_report
from mmcl.report.run_comparison_page import write_comparison
from mmcl.results.index import NAME, Index, ask, discard, index_digest
from mmcl.results.run_comparison import compare_runs
from mmcl.results.store import find_results
from mmcl.results.tables import find_tables, load_table

METHODS = ("finetune", "replay", "icarl", "wa", "bic", "der", "memo", "lucir", "aanets", "mnemonics")
BENCHMARKS = ("digits", "cifar100", "imagenet100", "shapes_classes")
TASKS, CLASSES, TEST_IMAGES = 10, 100, 100
STAGES = ("representation", "classifier", "herding", "evaluation")
INSIDE = {"state": 6, "traces": 3, "predictions": 10}  # folders and how many files runs leave in them


def write_store(root: Path, count: int) -> None:
    """Write results as runs leave them: ten tasks, two readouts, confusion matrices, files of state and predictions."""
    for number in range(count):
        draw = random.Random(number)
        kind, seed = divmod(number, 5)
        method, benchmark = METHODS[kind % len(METHODS)], BENCHMARKS[kind // len(METHODS) % len(BENCHMARKS)]
        run = root / benchmark / method / f"{kind:08x}" / f"seed{seed}"
        run.mkdir(parents=True)
        content = result_content(draw, method, benchmark, kind, seed)
        (run / "result.json").write_text(json.dumps(content, indent=1))
        (run / "identity.json").write_text(json.dumps({"identity": content["identity"], "config": content["config"]}))
        np.savetxt(run / "confusion_cnn.csv", confusion(number), fmt="%d", delimiter=",")
        for folder, files in INSIDE.items():
            (run / folder).mkdir()
            for file in range(files):
                (run / folder / f"{file:03d}.npz").touch()


def result_content(draw: random.Random, method: str, benchmark: str, kind: int, seed: int) -> dict[str, Any]:
    """Return a ``result.json`` with random figures."""
    overrides = f"+method={method} benchmark={benchmark} benchmark.increment=10 method.lr={0.001 * (kind + 1):g}"
    schedule = {"epochs": 170, "batch_size": 128, "lr": 0.001 * (kind + 1), "momentum": 0.9, "milestones": [80, 120]}
    stages = [
        {"task": task, "stage": stage, "epochs": 170, "seconds": draw.random() * 100, "images_per_second": 900.0}
        for task in range(TASKS)
        for stage in STAGES
    ]
    sizes = {"model_bytes": 2**20, "head_bytes": 2**10, "buffer_bytes": 0, "teacher_bytes": 0, "memory_bytes": 2**22}
    return {
        "schema": 1,
        "status": "finished" if draw.random() < 0.97 else "running",
        "error": None,
        "identity": f"{kind:08x}{seed:08x}",
        "command": f"python -m mmcl.run {overrides} seed={seed}",
        "config": {
            "seed": seed,
            "force": False,
            "trainer": {"name": "gpu", "precision": "bf16-mixed", "matmul_precision": "high", "devices": 1},
            "memory": {"size": 2000, "per_class": None, "select": "herding"},
            "backbone": {"name": "resnet32", "_target_": "mmcl.backbones.cifar_resnet.cifar_resnet"},
            "benchmark": {"name": benchmark, "base": 0, "increment": CLASSES // TASKS, "order_seed": seed},
            "method": {"name": method, "first_task": schedule, "later_tasks": {**schedule, "epochs": 100}},
        },
        "task_sizes": [CLASSES // TASKS] * TASKS,
        "task_names": None,
        "class_names": [f"class {label}" for label in range(CLASSES)],
        "readouts": {readout: figures(draw) for readout in ("cnn", "nme")},
        "bytes": [{"task": task, **sizes, "exemplars": 2000} for task in range(TASKS)],
        "timing": {"wall_seconds": draw.random() * 10000, "stages": stages},
        "provenance": {
            "commit": "342dd44847ef2f157a3e05712ecf7b878dcd7ab3",
            "versions": {"torch": "2.6", "numpy": "2.0", "lightning": "2.5"},
            "hardware": {"machine": "x86_64", "cpus": 16, "gpus": ["one"]},
            "date": f"2030-01-{1 + kind % 28:02d}T{seed:02d}:00:00+00:00",
            "seed": seed,
        },
    }


def figures(draw: random.Random) -> dict[str, Any]:
    curve = [draw.random() for _ in range(TASKS)]
    return {
        "accuracy_curve": curve,
        "top5_curve": [draw.random() for _ in range(TASKS)],
        "accuracy_matrix": [
            [draw.random() if task <= after else None for task in range(TASKS)] for after in range(TASKS)
        ],
        "average_incremental_accuracy": sum(curve) / TASKS,
        "last_accuracy": curve[-1],
        "forgetting": draw.random(),
        "backward_transfer": -draw.random(),
        "forward_transfer": None,
    }


def confusion(number: int) -> np.ndarray:
    return np.random.default_rng(number).multinomial(TEST_IMAGES, np.full(CLASSES, 1 / CLASSES), size=CLASSES)


def timed(name: str, action: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    answer = action()
    print(f"{name:<44}{time.perf_counter() - start:8.3f} s", flush=True)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=int, default=5000)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the results go, and stay; a temporary one else"
    )
    parser.add_argument("--no-report", action="store_true", help="leave the page out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary) / "runs"
        if not root.exists():
            timed(f"write {options.results} results", lambda: write_store(root, options.results))
        measure(root, with_report=not options.no_report)


def measure(root: Path, with_report: bool) -> None:
    discard(root)
    timed("index, built", lambda: ask(root, Index.counts))
    time.sleep(2.5)  # until the files count as settled
    timed("index, the youngest files again", lambda: ask(root, Index.counts))
    timed("index, nothing changed: counts", lambda: ask(root, Index.counts))
    timed("index, nothing changed: one identity", lambda: ask(root, lambda index: index.with_identity("0000000a")))
    timed("index, nothing changed: digest", lambda: index_digest(root))
    results, problems = timed("find_results", lambda: find_results(root))
    size = (root / NAME).stat().st_size / 2**20
    print(f"{len(results)} results, {len(problems)} problems; the index has {size:.1f} MiB")
    first, second = results[0], results[1]
    compared = timed("comparison of two", lambda: compare_runs(first, second))
    timed("its page", lambda: write_comparison(compared, root.parent / "comparison.html"))
    if with_report:
        tables = timed("all tables, read", lambda: [load_table(path) for path in find_tables()])
        page = timed("report", lambda: write_report(results, tables, root.parent / "report.html"))
        print(f"{page.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
