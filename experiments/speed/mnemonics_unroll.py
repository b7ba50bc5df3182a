"""What a step of Mnemonics' exemplars through the training of a whole network costs, in seconds and in memory.

    python experiments/speed/mnemonics_unroll.py
    python experiments/speed/mnemonics_unroll.py --device cuda --depth 32 --steps 5 20 50 --exemplars 200 --sides 32

One step trains the network on all exemplars for some inner steps, judges it by a batch of queries and takes the
gradient to the pixels. The whole graph of the inner steps is kept, or each is computed again on the way back. Unroll
length, exemplars and image side are varied one at a time; the first of each list is what the others are held at. Every
measurement has a process of its own. Memory is the largest during the step less that before it: of the process on a
CPU, of torch's tensors on a GPU. Growth is between the ends of a list. One thread; seconds are the quickest repeat.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from typing import NamedTuple

import torch

from mmcl.backbones.cosine_network import CosineNetwork
from mmcl.backbones.projection_resnet import projection_resnet
from mmcl.backbones.signed_features import signed_features
from mmcl.engine.allocator import keep_freed_memory
from mmcl.methods.mnemonics.bilevel import UnrolledNetwork

FORMS = ("whole_graph", "stepwise")
CLASSES, INNER_LR = 10, 0.01


class Size(NamedTuple):
    """Of a step: inner steps, exemplars, pixels of an image's side."""

    steps: int
    exemplars: int
    side: int


class Cost(NamedTuple):
    seconds: float
    megabytes: float
    gradient: float


def build(options: argparse.Namespace) -> CosineNetwork:
    torch.manual_seed(0)
    network = CosineNetwork(signed_features(projection_resnet(options.depth, options.width)))
    network.expand(CLASSES)
    if options.scales:
        network.transfer_weights()
    with torch.no_grad():
        network(torch.randn(64, 3, 32, 32))
    return network.eval().to(options.device)


def largest_memory(device: str) -> float:
    """Return the megabytes that were in use at once since the process began."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def take_step(level: UnrolledNetwork, size: Size, options: argparse.Namespace) -> tuple[float, float]:
    """Return the seconds of a step and the norm of its gradient."""
    draw = torch.Generator().manual_seed(1)
    counts = (size.exemplars, options.queries)
    exemplars, queries = (
        torch.randn(count, 3, size.side, size.side, generator=draw).to(options.device) for count in counts
    )
    labels, query_labels = (torch.arange(count, device=options.device) % CLASSES for count in counts)
    exemplars.requires_grad_()
    begin = time.perf_counter()
    level(exemplars, labels, queries, query_labels).backward()
    assert exemplars.grad is not None
    norm = float(exemplars.grad.norm())  # waits for a GPU
    return time.perf_counter() - begin, norm


def measure(form: str, size: Size, options: argparse.Namespace) -> Cost:
    torch.set_num_threads(1)
    network = build(options)
    take_step(UnrolledNetwork(network, INNER_LR, 1, form), Size(1, 2, 16), options)
    before = largest_memory(options.device)
    level = UnrolledNetwork(network, INNER_LR, size.steps, form)
    seconds, norm = take_step(level, size, options)
    megabytes = largest_memory(options.device) - before
    keep_freed_memory()  # as runs do; only now, because memory that is kept would count
    repeats = [take_step(level, size, options)[0] for _ in range(options.repeats)]
    return Cost(min([seconds, *repeats]), megabytes, norm)


def report(size: Size, costs: dict[str, Cost]) -> None:
    whole, stepwise = costs["whole_graph"], costs["stepwise"]
    times = "".join(f"{1000 * cost.seconds / size.steps:12.1f}" for cost in (whole, stepwise))
    memory = "".join(f"{cost.megabytes:12.1f}" for cost in (whole, stepwise))
    apart = abs(whole.gradient / stepwise.gradient - 1)
    print(f"{size.steps:6}{size.exemplars:10}{size.side:6}{times}{memory}{apart:12.1e}", flush=True)


def report_growth(name: str, first: int, last: int, ends: tuple[dict[str, Cost], dict[str, Cost]]) -> None:
    for form in FORMS:
        seconds, megabytes = (
            (getattr(ends[1][form], figure) - getattr(ends[0][form], figure)) / (last - first)
            for figure in ("seconds", "megabytes")
        )
        print(f"  {form:<12} for one more {name}: {1000 * seconds:9.2f} ms, {megabytes:8.3f} MB")


def main() -> None:
    """Vary each size in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--depth", type=int, default=14, help="of the ResNet; the paper's is 32")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--scales", action="store_true", help="train scales and shifts in place of convolutions")
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--exemplars", type=int, nargs="+", default=[20, 40, 80])
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 48, 64])
    parser.add_argument("--queries", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()

    print(f"ResNet-{options.depth}, width {options.width}, {options.device}, {options.queries} queries")
    print(f"{'':22}{'ms for an inner step':>24}{'MB':>24}")
    head = "".join(f"{name:>12}" for name in ("whole graph", "stepwise") * 2)
    print(f"{'steps':>6}{'exemplars':>10}{'side':>6}{head}{'apart':>12}")
    base = Size(options.steps[0], options.exemplars[0], options.sides[0])
    context = multiprocessing.get_context("spawn")
    known: dict[Size, dict[str, Cost]] = {}
    lists = {"steps": options.steps, "exemplars": options.exemplars, "side": options.sides}
    for name, values in lists.items():
        for value in values:
            size = base._replace(**{name: value})
            if size not in known:
                with context.Pool(1, maxtasksperchild=1) as pool:
                    jobs = [(form, size, options) for form in FORMS]
                    known[size] = dict(zip(FORMS, pool.starmap(measure, jobs, chunksize=1), strict=True))
                report(size, known[size])
        if len(values) > 1:
            ends = base._replace(**{name: values[0]}), base._replace(**{name: values[-1]})
            label = {"steps": "inner step", "exemplars": "exemplar", "side": "pixel of the side"}[name]
            report_growth(label, values[0], values[-1], (known[ends[0]], known[ends[1]]))


if __name__ == "__main__":
    main()
