"""What adding classes to a memory does to the answers for the old ones.

    python -m mmcl.run +method=mml seed=1 && python experiments/mml/moved_answers.py RUN

RUN is the directory of a finished run of MML on images. Its learner answers for the queries of the classes of training,
first with their memory alone, then with that of the unseen classes beside it. Printed for each readout, in percent of
the queries: answers that are another *old* class now (new classes left out), answers that went to a new class, and the
tie rate: queries whose two likeliest old classes are closer than 1e-5 of the largest score.

Prototypes depend on the rows of their class alone, so the readouts on prototypes cannot move but for ties. Neighbours
are searched in the whole memory: new rows push old ones out of the neighbourhood.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mmcl.benchmarks.memory_images import MemoryImages
from mmcl.benchmarks.memory_sets import EncodedSet, joined
from mmcl.config.components import build
from mmcl.engine.finished_run import FinishedRun
from mmcl.methods.mml.remembered import Remembered

TIE = 1e-5


def moved(before: Tensor, after: Tensor) -> tuple[float, float, float]:
    """Return percentages of queries: another old class, a new class, ties.

    Args:
        before: scores for C old classes ``(B, C)``.
        after: scores for these and more, ``(B, C + E)``.
    """
    old = before.shape[1]
    answers = before.argmax(dim=1)
    first, second = before.topk(2, dim=1).values.unbind(1)
    tied = (first - second) <= TIE * before[before.isfinite()].abs().max()
    shares = (after[:, :old].argmax(dim=1) != answers, after.argmax(dim=1) >= old, tied)
    one, two, three = (100 * float(share.double().mean()) for share in shares)
    return one, two, three


@torch.no_grad()
def scores(run: FinishedRun, known: EncodedSet, queries: Tensor) -> dict[str, Tensor]:
    """Return what each readout says about queries ``(B, D)`` with the memory of a set."""
    memory = run.empty_memory()
    memory.replace(known.content(with_shots=False), memory.encoder)
    return Remembered(memory, run.keys.neighbourhood, run.device).scores(run.learner, queries)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = FinishedRun(parser.parse_args().run)
    benchmark = build(run.config.benchmark)
    assert isinstance(benchmark, MemoryImages)
    benchmark.connect(run.encoders())
    seen, unseen = benchmark.encode_set("seen"), benchmark.encode_set("unseen")
    queries = seen.queries.features[:, 0].float().to(run.device)
    before, after = scores(run, seen, queries), scores(run, joined([seen, unseen]), queries)
    table = Table("readout", "another old class", "a new class", "ties", title=f"{len(queries)} queries, percent")
    for name in before:
        table.add_row(name, *(f"{share:.2f}" for share in moved(before[name], after[name])))
    Console().print(table)


if __name__ == "__main__":
    main()
