"""DER: a whole network for each task, the old ones frozen, and an auxiliary head that tells new classes from old."""

from __future__ import annotations

import torch

from mmcl.memory.accounting import module_bytes
from tests.methods.toy import ToyBenchmark, begun, changed, go_through, take_step, tensors, toy_method, whole_batch


def test_nothing_is_shared_and_each_task_adds_a_whole_network() -> None:
    plain, _ = begun("finetune", tasks=0)
    method, _ = begun("der", tasks=2, classes=6)
    assert list(method.network.trunk.parameters()) == []
    assert len(method.network.branches) == 3
    for branch in method.network.branches:
        assert module_bytes(branch).total == module_bytes(plain.network.backbone).total


def test_a_new_network_begins_as_the_newest_and_learns_alone() -> None:
    method, task = begun("der", tasks=2, classes=6)
    oldest, newest, new = method.network.branches
    assert not changed(tensors(newest), new)
    assert changed(tensors(oldest), new)
    (stage,) = method.stages(task)
    method.begin_stage(stage, task)
    before = tensors(method.network)
    take_step(method, task, stage.samples)
    moved = {name.split(".weight")[0].split(".bias")[0] for name in changed(before, method.network)}
    assert {".".join(name.split(".")[:2]) for name in moved} == {"branches.2", "head", "auxiliary_head"}


def test_the_auxiliary_head_sees_one_old_class_and_nothing_in_the_first_task() -> None:
    method, task = begun("der", tasks=0)
    method.begin_stage(method.stages(task)[0], task)
    assert set(method.losses(whole_batch(task))) == {"classification"}
    assert not any(parameter.requires_grad for parameter in method.network.auxiliary_head.parameters())
    method, task = begun("der", "method.alpha_aux=0.5", tasks=2, classes=6)
    (stage,) = method.stages(task)
    method.begin_stage(stage, task)
    batch = whole_batch(task, stage.samples)
    output = method.eval().network(batch.images)
    assert output.auxiliary_logits.shape[1] == 1 + 2
    targets = torch.where(batch.labels < 4, 0, batch.labels - 3)
    expected = 0.5 * torch.nn.functional.cross_entropy(output.auxiliary_logits, targets)
    assert sorted(targets.unique().tolist()) == [0, 1, 2]
    torch.testing.assert_close(method.losses(batch)["auxiliary"], expected)


def test_its_features_are_those_of_all_networks_side_by_side() -> None:
    benchmark, method = ToyBenchmark(), toy_method("der")
    task = go_through(method, benchmark, 2)
    images = whole_batch(task).images
    with torch.no_grad():
        features = method.eval().network(images).features
        parts = [branch(images) for branch in method.network.branches]
    torch.testing.assert_close(features, torch.cat(parts, dim=1), rtol=1e-3, atol=1e-4)
