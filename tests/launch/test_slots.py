"""Slots of a machine, as its driver and its environment tell of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmcl.errors import UserError
from mmcl.launch.slots import find_slots

GPUS = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa-1)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb-2)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-cccc-3)
"""
CUT = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa-1)
  MIG 3g.20gb     Device  0: (UUID: MIG-1111-1)
  MIG 3g.20gb     Device  1: (UUID: MIG-2222-2)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb-2)
"""


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}")


def _driver(folder: Path, gpus: str, busy: str = "") -> None:
    """Put an ``nvidia-smi`` into the search path that lists GPUs and who computes."""
    (folder / "gpus").write_text(gpus)
    (folder / "busy").write_text(busy)
    program = folder / "nvidia-smi"
    program.write_text(f'#!/bin/sh\nif [ "$1" = -L ]; then /bin/cat {folder}/gpus; else /bin/cat {folder}/busy; fi\n')
    program.chmod(0o755)


def _devices(count: int | None = None, accelerator: str = "auto") -> list[str]:
    return [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in find_slots(count, accelerator)]


def test_one_slot_for_each_free_gpu(tmp_path: Path) -> None:
    _driver(tmp_path, GPUS, busy="GPU-bbbb-2\n")
    assert _devices() == ["GPU-aaaa-1", "GPU-cccc-3"]
    assert _devices(1) == ["GPU-aaaa-1"]
    assert _devices(8, "gpu") == ["GPU-aaaa-1", "GPU-cccc-3"]


def test_parts_of_a_gpu_are_slots_of_their_own(tmp_path: Path) -> None:
    _driver(tmp_path, CUT)
    assert _devices() == ["MIG-1111-1", "MIG-2222-2", "GPU-bbbb-2"]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("2,0", ["2", "0"]),
        ("1,2", ["2"]),
        ("GPU-cccc", ["GPU-cccc"]),
        ("0,-1,2", ["0"]),
    ],
)
def test_what_is_visible_is_handed_on_as_it_is(
    visible: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _driver(tmp_path, GPUS, busy="GPU-bbbb-2\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert _devices() == expected


def test_visible_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _driver(tmp_path, CUT, busy="MIG-1111-1\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1111-1,MIG-2222-2")
    assert _devices() == ["MIG-2222-2"]


@pytest.mark.parametrize("visible", ["", "-1"])
def test_without_a_visible_gpu_the_cores_are_slots(
    visible: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _driver(tmp_path, GPUS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert all(slot.name.startswith("cpu ") for slot in find_slots())
    with pytest.raises(UserError, match="trainer=cpu"):
        find_slots(accelerator="gpu")


def test_gpus_that_are_all_busy(tmp_path: Path) -> None:
    _driver(tmp_path, GPUS, busy="GPU-aaaa-1\nGPU-bbbb-2\nGPU-cccc-3\n")
    with pytest.raises(UserError, match="another process"):
        find_slots(accelerator="gpu")
    assert find_slots()[0].name == "cpu 0"


def test_slots_of_the_cpu_share_its_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _driver(tmp_path, GPUS)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert len(find_slots(accelerator="cpu")) == 8
    assert [slot.environment["OMP_NUM_THREADS"] for slot in find_slots(2, "cpu")] == ["4", "4"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    slots = find_slots(accelerator="cpu")
    assert [slot.environment["OMP_NUM_THREADS"] for slot in slots] == ["3", "3"]
    assert {slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots} == {""}
    with pytest.raises(UserError, match="at least 1"):
        find_slots(0)
