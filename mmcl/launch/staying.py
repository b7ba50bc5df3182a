"""Many small runs in a few processes that stay: a run of seconds need not wait for a start of seconds."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path


def run_all(runs: Sequence[Sequence[str]], jobs: int) -> Iterator[Path | Exception]:
    """Run configurations, each on one thread and without its lines; a failed one does not stop the others.

    Args:
        runs: overrides of each run.
        jobs: processes at the same time.

    Yields:
        The path of each ``result.json``, or what went wrong, in the order of ``runs``.
    """
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_one_thread) as pool:
        futures = [pool.submit(_run, list(overrides)) for overrides in runs]
        try:
            for future in futures:
                try:
                    outcome: Path | Exception = Path(future.result())
                except Exception as error:  # noqa: BLE001 - told by whoever asked for the run
                    outcome = error
                yield outcome
        finally:  # whoever asked may want no more
            for future in futures:
                future.cancel()


def _run(overrides: list[str]) -> str:
    from mmcl.config.compose import compose_run
    from mmcl.config.method_files import load_method_files
    from mmcl.config.overrides import documented, normalise
    from mmcl.engine.assemble import run
    from mmcl.engine.provenance import command

    load_method_files()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        config = compose_run([*overrides, "trainer.progress=false"])
        return str(run(config, command(documented(normalise(overrides)))))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
