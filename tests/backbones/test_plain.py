from __future__ import annotations

import copy

import torch

from mmcl.backbones import PlainNetwork, freeze
from mmcl.backbones.cifar_resnet import cifar_resnet


def test_expanding_keeps_the_old_rows() -> None:
    network = PlainNetwork(cifar_resnet(8, width=4)).eval()
    images = torch.randn(2, 3, 32, 32)
    assert network(images).logits.shape == (2, 0)
    network.expand(3)
    before = network(images)
    network.expand(5)
    after = network(images)
    assert before.features.shape == (2, 16)
    torch.testing.assert_close(after.logits[:, :3], before.logits)


def test_a_frozen_teacher_agrees_with_its_student_and_stays_in_eval_mode() -> None:
    student = PlainNetwork(cifar_resnet(8, width=4)).eval()
    student.expand(3)
    teacher = freeze(copy.deepcopy(student))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(teacher(images).logits, student(images).logits)
    assert not any(module.training for module in teacher.train().modules())
