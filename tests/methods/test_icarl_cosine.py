"""iCaRL with a cosine head: what holds the old logits, with which weight."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.methods.toy import begun, whole_batch


def test_at_first_nothing_is_to_be_distilled() -> None:
    method, task = begun("icarl_cosine")
    method.eval()
    batch = whole_batch(task)
    terms = method.losses(batch)
    assert set(terms) == {"classification", "distillation"}
    torch.testing.assert_close(terms["distillation"], torch.tensor(0.0), rtol=0, atol=1e-6)
    with torch.no_grad():
        method.network.head.sigma.mul_(3)  # the scale of the head is part of what is distilled
    assert method.losses(batch)["distillation"] > 1e-3


@pytest.mark.parametrize(("temperature", "beta"), [(2.0, 0.25), (4.0, 1.0)])
def test_distillation_is_the_weighted_divergence_of_softened_answers(temperature: float, beta: float) -> None:
    typed = (f"method.soft_targets.temperature={temperature}", f"method.soft_targets.beta={beta}")
    method, task = begun("icarl_cosine", *typed)
    method.eval()
    batch = whole_batch(task)
    with torch.no_grad():
        method.network.head.sigma.mul_(3)
        ours = F.log_softmax(method.network(batch.images).logits[:, :2] / temperature, dim=1)
        theirs = F.log_softmax(method.teacher(batch.images).logits / temperature, dim=1)
        divergence = (theirs.exp() * (theirs - ours)).sum(dim=1).mean()
        found = method.losses(batch)["distillation"]
    torch.testing.assert_close(found, temperature**2 * beta * divergence)
