"""Speed of MML's memory: prototypes and nearest rows, against the straightforward way, and nearest rows at scale.

    OMP_NUM_THREADS=1 python experiments/speed/mml_memory.py
    OMP_NUM_THREADS=1 python experiments/speed/mml_memory.py --rows 100000 1000000 10000000 --dimension 64 --repeats 3

The straightforward way makes the table of all cosines of each class for prototypes, and scales the whole memory to
length 1 anew for each batch of queries. Here, a memory is prepared once and then asked; preparing is a row of its own.
Both sides see the same features, 512 numbers each; the last column says how far their results are apart: the largest
difference between prototypes, the share of neighbours that only one side finds. The sides take turns; figures are
medians over repeats, in processor time, which other load disturbs least.

At scale the rows are float16 and there is no straightforward side: MiB of the rows, of what the index keeps beside them
and of what the process needed for a while beside both (KiB for each of 256 queries), seconds to prepare the index, and
milliseconds for each query. Where faiss is installed, its graph follows for sizes up to ``--graph``: seconds to build,
milliseconds for each query, and the share of the true neighbours that it finds.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl.memory.prototypes import prototypes
from mmcl.memory.search import ExactIndex, FaissIndex, recall

CLASSES, IMAGES, TEXTS, DIMENSION = 100, 100, 150, 512
QUERIES, K, TOP = 256, 32, 16


class Rows(NamedTuple):
    """Features ``(N, D)`` and classes ``(N,)``."""

    features: Tensor
    classes: Tensor


def clusters(per_class: int) -> Rows:
    """Return rows around class means."""
    classes = torch.arange(CLASSES).repeat_interleave(per_class)
    means = torch.randn(CLASSES, DIMENSION)
    return Rows(means[classes] + 2 * torch.randn(len(classes), DIMENSION), classes)


def pairwise_prototypes(images: Rows, texts: Rows) -> tuple[Tensor, Tensor]:
    """Return the prototypes out of all cosines of each class."""
    image_side, text_side = [], []
    for number in range(CLASSES):
        of_images, of_texts = (rows.features[rows.classes == number] for rows in (images, texts))
        cosines = normalize(of_images, dim=1) @ normalize(of_texts, dim=1).T
        image_side.append(of_images[cosines.sum(dim=1).topk(TOP).indices].mean(dim=0))
        text_side.append(of_texts[cosines.sum(dim=0).topk(TOP).indices].mean(dim=0))
    return normalize(torch.stack(image_side), dim=1), normalize(torch.stack(text_side), dim=1)


def renormalised_nearest(queries: Tensor, rows: Tensor) -> Tensor:
    """Return the nearest rows, the whole memory being scaled first."""
    return (normalize(queries, dim=1) @ normalize(rows, dim=1).T).topk(K, dim=1).indices


def apart(ours: Any, theirs: Any) -> float:
    """Return the largest difference of prototypes, or the share of neighbours that one side alone finds."""
    if isinstance(ours, Tensor):
        return 1 - float((ours[:, :, None] == theirs[:, None, :]).any(dim=2).double().mean())
    return max(float((mine - other).abs().max()) for mine, other in zip(ours, theirs, strict=True))


def seconds(work: Callable[[], Any]) -> float:
    """Return the processor seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(name: str, amount: int, theirs: Callable[[], Any], ours: Callable[[], Any], repeats: int) -> None:
    """Print how many of the amount each side does in a second."""
    difference = apart(ours(), theirs())
    both = [(seconds(theirs), seconds(ours)) for _ in range(repeats)]
    slow, fast = (amount / statistics.median(side) for side in zip(*both, strict=True))
    print(f"{name:34}{slow:18,.0f}{fast:14,.0f}{fast / slow:8.2f}{difference:10.1e}")


def comparisons(repeats: int) -> None:
    images, texts, queries = clusters(IMAGES), clusters(TEXTS), 3 * torch.randn(QUERIES, DIMENSION)
    print(f"{'per second':34}{'straightforward':>18}{'mmcl':>14}{'ratio':>8}{'apart':>10}")
    compare(
        "prototypes of classes",
        CLASSES,
        lambda: pairwise_prototypes(images, texts),
        lambda: prototypes(*images, *texts, CLASSES, TOP),
        repeats,
    )
    for name, rows in (("images", images.features), ("texts", texts.features)):
        for coarse in (torch.bfloat16, torch.float32):
            index = ExactIndex(rows, coarse=coarse)
            compare(
                f"queries, {name}, coarse {str(coarse).removeprefix('torch.')}",
                QUERIES,
                lambda rows=rows: renormalised_nearest(queries, rows),
                lambda index=index: index.search(queries, K).rows,
                repeats,
            )
        prepared = [seconds(lambda rows=rows: ExactIndex(rows)) for _ in range(repeats)]
        print(f"{f'rows prepared, {name}':34}{'':18}{len(rows) / statistics.median(prepared):14,.0f}")


def at_scale(size: int, dimension: int, repeats: int, graph: bool) -> None:
    """Print time and bytes of a query among many rows, made in pieces so that the making does not count."""
    rows = torch.empty(size, dimension, dtype=torch.float16)
    for piece in torch.split(rows, 2**16):
        piece.copy_(torch.randn(piece.shape))
    queries = torch.randn(QUERIES, dimension)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    index = ExactIndex(rows)
    prepared = time.process_time() - start
    took = statistics.median(seconds(lambda: index.search(queries, K)) for _ in range(repeats))
    grew = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 - index.nbytes / 2**20
    kept = f"{size:12,}{rows.nbytes / 2**20:10,.0f}{index.nbytes / 2**20:11,.0f}"
    used = f"{grew:13,.0f}{1024 * grew / QUERIES:13,.0f}{prepared:11.2f}{1000 * took / QUERIES:12.3f}"
    print(kept + used + (graph_figures(rows, queries, index, repeats) if graph else ""), flush=True)


def graph_figures(rows: Tensor, queries: Tensor, exact: ExactIndex, repeats: int) -> str:
    """Return seconds to build, milliseconds for each query and recall of faiss's graph."""
    start = time.process_time()
    index = FaissIndex(rows)
    built = time.process_time() - start
    took = statistics.median(seconds(lambda: index.search(queries, K)) for _ in range(repeats))
    return f"{built:12.1f}{1000 * took / QUERIES:13.3f}{recall(index, exact, queries, K):9.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[])
    parser.add_argument("--dimension", type=int, default=DIMENSION)
    parser.add_argument("--graph", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=11)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if not options.rows:
        comparisons(options.repeats)
        return
    with_faiss = importlib.util.find_spec("faiss") is not None
    head = f"{'rows':>12}{'rows MiB':>10}{'index MiB':>11}{'passing MiB':>13}{'KiB a query':>13}{'prepare s':>11}"
    print(f"{head}{'ms a query':>12}" + (f"{'faiss: s':>12}{'ms a query':>13}{'recall':>9}" if with_faiss else ""))
    for size in options.rows:
        at_scale(size, options.dimension, options.repeats, with_faiss and size <= options.graph)


if __name__ == "__main__":
    main()
