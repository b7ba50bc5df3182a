"""Exemplars learned through the training on them: gradients of a loss after gradient steps, to the pixels.

Liu, Su, Liu, Schiele, Sun, "Mnemonics Training: Multi-Class Incremental Learning without Forgetting", CVPR 2020, its
exemplar-level problem. A model is trained on the exemplars alone, then judged on other images; what it loses there is
differentiated through all training steps. Two inner problems: the classifier alone, and the whole network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mmcl.backbones.aggregated import AggregatedNetwork
from mmcl.backbones.cosine_head import SMALLEST_NORM, cosine_scores, unit_rows
from mmcl.backbones.scale_shift import ScaleShiftConv2d
from mmcl.memory.class_rows import class_rows


def exemplar_sets(labels: Tensor, count: int) -> list[Tensor]:
    """Deal the exemplars of each class into sets in turn, so that every set has about as many of each class.

    Args:
        labels: int64 ``(R,)``.
        count: largest number of sets; there are no more than the largest class has exemplars.

    Returns:
        The rows of each set, int64 ascending, on the device of the labels.
    """
    groups = class_rows(labels.cpu())
    sets = [torch.cat([group[number::count] for group in groups]) for number in range(count)]
    return [rows.sort().values.to(labels.device) for rows in sets if len(rows)]


def unrolled_fc_loss(
    weight: Tensor,
    exemplar_features: Tensor,
    exemplar_labels: Tensor,
    sets: Sequence[Tensor],
    inner_lr: Sequence[float],
    inner_epochs: int,
    query_features: Tensor,
    query_labels: Tensor,
) -> Tensor:
    """Train the cosine classifier on the exemplars and return its loss for queries.

    All scores are cosines without scale. The features do not depend on the classifier, so one pass over the exemplars
    serves all steps, and the gradient goes back through the network once.

    Args:
        weight: the classifier's rows ``(C, D)``, where training begins; not changed.
        exemplar_features: ``(R, D)``, with their graph to the pixels.
        exemplar_labels: int64 ``(R,)``.
        sets: rows of the exemplars of each inner step, which take turns.
        inner_lr: learning rate of each set's step.
        inner_epochs: how often all sets have their turn.
        query_features: ``(N, D)``.
        query_labels: int64 ``(N,)``.

    Returns:
        The loss ``()``, differentiable to ``exemplar_features``.
    """
    # Hundreds of small steps would add up the rounding of a half precision.
    with torch.autocast(weight.device.type, enabled=False):
        units = unit_rows(exemplar_features.to(weight.dtype))
        targets = F.one_hot(exemplar_labels, len(weight)).to(weight.dtype)
        turns = [(units[rows], targets[rows], rate) for rows, rate in zip(sets, inner_lr, strict=True)]
        for _ in range(inner_epochs):
            for turn in turns:
                weight = _descended_rows(weight, *turn)
        return F.cross_entropy(cosine_scores(query_features.to(weight.dtype), weight), query_labels)


def _descended_rows(weight: Tensor, units: Tensor, targets: Tensor, rate: float) -> Tensor:
    """Take one step of gradient descent on the cross-entropy of cosines.

    The gradient is written out: differentiating it once is quicker than differentiating the loss twice.
    """
    norms: Tensor = torch.linalg.vector_norm(weight, dim=1, keepdim=True).clamp(min=SMALLEST_NORM)
    rows = weight / norms
    errors = (units @ rows.T).softmax(dim=1) - targets
    towards = errors.T @ units / len(units)
    # Only what turns a row changes its cosines.
    turning = towards - rows * (rows * towards).sum(dim=1, keepdim=True)
    return weight - rate * turning / norms


def inner_parameter_names(network: nn.Module) -> list[str]:
    """Name the parameters that the inner training of a whole network moves.

    They are those of all its parts, whether or not they ask for a gradient now, but not the frozen weights below
    scales and shifts, nor a fixed branch. Parameters of the network itself, as the shares of two branches are, belong
    to another level.
    """
    fixed = network.fixed if isinstance(network, AggregatedNetwork) else ()
    return [
        f"{place}.{name}"
        for place, part in network.named_modules()
        for name, _ in part.named_parameters(recurse=False)
        if place
        and place.partition(".")[0] not in fixed
        and not (isinstance(part, ScaleShiftConv2d) and name in ("weight", "bias"))
    ]


class InnerProblem(NamedTuple):
    """Training of a whole network on exemplars alone, by plain gradient steps on all of them.

    Attributes:
        network: gives ``logits`` for images; in eval mode, so that its statistics stand still. It is not changed.
        names: of the parameters that move, from :func:`inner_parameter_names`.
        labels: of the exemplars, int64 ``(R,)``.
        learning_rate: of a step.
        steps: number of steps.
    """

    network: nn.Module
    names: list[str]
    labels: Tensor
    learning_rate: float
    steps: int

    def start(self) -> list[Tensor]:
        """Return the parameters that move as they are in the network, free of it."""
        return [self.network.get_parameter(name).detach().clone().requires_grad_() for name in self.names]

    def loss(self, parameters: Sequence[Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy ``()`` for images ``(N, 3, H, W)`` with the network's parameters replaced."""
        # Copies, so that not even a network in train mode would see its statistics written.
        fixed = {name: tensor.detach().clone() for name, tensor in self.network.named_buffers()}
        fixed |= {name: tensor.detach() for name, tensor in self.network.named_parameters()}
        moved = dict(zip(self.names, parameters, strict=True))
        with torch.compiler.set_stance("force_eager"):  # compiled graphs have no gradient of a gradient
            logits: Tensor = functional_call(self.network, fixed | moved, (images,)).logits
        return F.cross_entropy(logits, labels)

    def descended(self, parameters: Sequence[Tensor], slopes: Sequence[Tensor]) -> list[Tensor]:
        """Return the parameters after one step along given gradients."""
        pairs = zip(parameters, slopes, strict=True)
        return [parameter - self.learning_rate * slope for parameter, slope in pairs]


def loss_through_whole_graph(
    problem: InnerProblem, exemplars: Tensor, query_images: Tensor, query_labels: Tensor
) -> Tensor:
    """Train on the exemplars and return the loss for queries, keeping the graph of all steps.

    The memory of its gradient grows with the number of steps; :func:`loss_step_by_step` is the same loss without.

    Args:
        problem: how the network is trained.
        exemplars: normalised, float32 ``(R, 3, H, W)``.
        query_images: ``(N, 3, H, W)``.
        query_labels: int64 ``(N,)``.

    Returns:
        The loss ``()``, differentiable to ``exemplars``.
    """
    parameters = problem.start()
    for _ in range(problem.steps):
        inner_loss = problem.loss(parameters, exemplars, problem.labels)
        slopes = torch.autograd.grad(inner_loss, parameters, create_graph=True)
        parameters = problem.descended(parameters, slopes)
    return problem.loss(parameters, query_images, query_labels)


def loss_step_by_step(problem: InnerProblem, exemplars: Tensor, query_images: Tensor, query_labels: Tensor) -> Tensor:
    """Return the loss of :func:`loss_through_whole_graph`, holding the graph of one inner step at a time.

    Of each step it keeps the parameters alone. From the gradient of the outer loss to the last of them it goes back
    through the steps, computing each again: with step size a and Hessian H of the inner loss at the parameters of
    step t, their gradient is ``lambda_t = lambda_(t+1) - a H lambda_(t+1)``, and the step adds ``-a`` times the mixed
    derivative along ``lambda_(t+1)`` to the gradient of the pixels. That happens here and now, not in ``backward()``,
    which only hands the gradient on.

    Args:
        problem: how the network is trained.
        exemplars: normalised, float32 ``(R, 3, H, W)``.
        query_images: ``(N, 3, H, W)``.
        query_labels: int64 ``(N,)``.

    Returns:
        The loss ``()``, differentiable to ``exemplars`` once.
    """
    pixels = exemplars.detach().requires_grad_()
    path = [problem.start()]
    for _ in range(problem.steps):
        inner_loss = problem.loss(path[-1], pixels, problem.labels)
        slopes = torch.autograd.grad(inner_loss, path[-1])
        path.append([parameter.detach().requires_grad_() for parameter in problem.descended(path[-1], slopes)])
    last = path.pop()
    loss = problem.loss(last, query_images, query_labels)
    adjoint = torch.autograd.grad(loss, last)
    gradient = torch.zeros_like(pixels)
    while path:
        parameters = path.pop()
        inner_loss = problem.loss(parameters, pixels, problem.labels)
        slopes = torch.autograd.grad(inner_loss, parameters, create_graph=True)
        # Nothing asks for the gradient of the first step's parameters.
        wanted = [pixels, *(parameters if path else [])]
        to_pixels, *to_parameters = torch.autograd.grad(slopes, wanted, adjoint)
        gradient -= problem.learning_rate * to_pixels
        adjoint = tuple(problem.descended(adjoint, to_parameters)) if path else ()
    return _KnownGradient.apply(exemplars, loss.detach(), gradient)  # type: ignore[no-any-return,no-untyped-call]


class _KnownGradient(torch.autograd.Function):
    """A loss whose gradient to the exemplars is known already."""

    @staticmethod
    def forward(ctx: Any, exemplars: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


NetworkUnrolling = Callable[[InnerProblem, Tensor, Tensor, Tensor], Tensor]
UNROLLINGS: dict[str, NetworkUnrolling] = {"stepwise": loss_step_by_step, "whole_graph": loss_through_whole_graph}
