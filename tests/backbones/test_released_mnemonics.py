"""Networks of Mnemonics' authors: read without their code, the same outputs, and refused where anything is amiss."""

from __future__ import annotations

import os
import pickle
import sys
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from mmcl.backbones.pickled_modules import read_pickled
from mmcl.backbones.released_mnemonics import OFFICIAL_MODULES, read_released
from mmcl.backbones.scale_shift import ScaleShiftConv2d
from mmcl.errors import UserError
from mmcl.pixels import PixelScale
from tests.backbones.released_modules import LAYOUTS, made, save

THEIRS = PixelScale((0.5071, 0.4866, 0.4409), (0.2009, 0.1984, 0.2023))

pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")


def images(side: int = 32) -> torch.Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


def logits(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        output = network(inputs)
    return getattr(output, "logits", output)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("layers", [3, 4])
@pytest.mark.parametrize(("transfer", "head"), [(False, (5,)), (True, (5, 2)), (False, (5, 2))])
def test_outputs_are_those_of_the_pickled_module(
    tmp_path: Path, layout: str, layers: int, transfer: bool, head: tuple[int, ...]
) -> None:
    theirs = made(*head, layers=layers, transfer=transfer, pool=2)
    file = save(theirs, tmp_path / "run_0_iteration_3_model.pth", layout)
    assert not any(name.startswith(("models", "utils.incremental")) for name in sys.modules)
    ours = read_released(file)
    inputs = images(32 if layers == 3 else 64)
    torch.testing.assert_close(logits(ours, inputs), logits(theirs, inputs), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits(ours.frozen_copy(), inputs), logits(theirs, inputs), rtol=1e-5, atol=1e-6)
    assert [len(ours.head.weight_old), len(ours.head.weight_new)] == [0, *head][-2:]
    assert any(isinstance(part, ScaleShiftConv2d) for part in ours.modules()) is transfer
    counters = [buffer for name, buffer in ours.named_buffers() if name.endswith("num_batches_tracked")]
    assert all(int(counter) == 7 for counter in counters)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_state_dict_is_read_too_also_without_counters(tmp_path: Path, layout: str) -> None:
    theirs = made(5, 2, transfer=True)
    state = theirs.state_dict()
    assert hasattr(state, "_metadata")
    kept = OrderedDict((name, tensor) for name, tensor in state.items() if "num_batches" not in name)
    for content in (state, {"state_dict": kept, "epoch": 160}):
        file = tmp_path / "state.pth"
        torch.save(content, file, _use_new_zipfile_serialization=LAYOUTS[layout])
        torch.testing.assert_close(logits(read_released(file), images()), logits(theirs, images()))


def test_the_table_of_kernels_of_old_modules_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thnn = ModuleType("torch.nn.backends.thnn")

    def _get_thnn_function_backend() -> None:
        raise AssertionError("nothing of the file may run")

    class Backend:
        def __reduce__(self) -> tuple[Any, ...]:
            return _get_thnn_function_backend, ()

    _get_thnn_function_backend.__module__, _get_thnn_function_backend.__qualname__ = (
        thnn.__name__,
        "_get_thnn_function_backend",
    )
    thnn._get_thnn_function_backend = _get_thnn_function_backend  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, thnn.__name__, thnn)
    theirs = made(5)
    for part in theirs.modules():
        part._backend = Backend()
    file = save(theirs, tmp_path / "model.pth", "sequence")
    torch.testing.assert_close(logits(read_released(file), images()), logits(theirs, images()))


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_that_runs_code_is_refused(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = made(5)
    theirs.layer2[0].extra = Harmful()
    file = save(theirs, tmp_path / "model.pth", layout)
    with pytest.raises(UserError, match=r"model.pth cannot be read \(\w+.mkdir is not allowed"):
        read_released(file)
    assert not Path("harm").exists()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_foreign_class_is_named(tmp_path: Path, layout: str) -> None:
    theirs = made(5)
    theirs.extra = nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"torch.nn.modules.linear.Linear is not allowed"):
        read_released(save(theirs, tmp_path / "model.pth", layout))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.5, 0.99, -1])
def test_a_truncated_file_is_named(tmp_path: Path, layout: str, kept: float) -> None:
    file = save(made(5), tmp_path / "model.pth", layout)
    content = file.read_bytes()
    file.write_bytes(content[: -1 if kept < 0 else int(kept * len(content))])
    with pytest.raises(UserError, match=r"model.pth cannot be read"):
        read_released(file)


def test_a_missing_file_and_other_contents_are_named(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    with pytest.raises(UserError, match="model.pth: no such file"):
        read_released(file)
    for content, message in (([1, 2], "a list where a module"), ({"epoch": 3}, "holds no named tensors")):
        torch.save(content, file)
        with pytest.raises(UserError, match=message):
            read_released(file)
    file.write_bytes(pickle.dumps(7) * 3)
    with pytest.raises(UserError, match=r"not written by torch.save"):
        read_released(file)


def test_a_tensor_cannot_reach_beyond_its_numbers(tmp_path: Path) -> None:
    class Beyond:
        def __init__(self, size: tuple[int, ...], stride: tuple[int, ...], offset: int) -> None:
            self.cut = (offset, size, stride)

        def __reduce__(self) -> tuple[Any, ...]:
            storage = torch.zeros(4)._typed_storage()
            return torch._utils._rebuild_tensor_v2, (storage, *self.cut, False, OrderedDict())

    file = tmp_path / "state.pth"
    torch.save({"weight": Beyond((2, 2), (2, 1), 0)}, file)
    assert read_pickled(file, ())["weight"].shape == (2, 2)
    for cut in (((2, 2), (2, 1), 1), ((10**9,), (0,), 0), ((2,), (1,), -1)):
        torch.save({"weight": Beyond(*cut)}, file)
        with pytest.raises(UserError, match=r"state.pth cannot be read"):
            read_pickled(file, ())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_ends_in_one_kind_of_error(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes of the pickles changed at will: the file is read, or refused with a message."""
    whole = tmp_path / "whole.pth"
    if not whole.is_file():
        save(made(5, width=1), whole, "sequence")
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(content)
    with suppress(UserError):
        tensors = read_pickled(damaged, OFFICIAL_MODULES)
        assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())


def changed(state: dict[str, torch.Tensor], **changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    merged = {**state, **{name.replace("__", "."): tensor for name, tensor in changes.items()}}
    return {name: tensor for name, tensor in merged.items() if tensor is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer3__0__bn2__bias": None}, r"it has no layer3.0.bn2.bias"),
        ({"layer1__0__conv1__mtl_weight": None}, r"it has no layer1.0.conv1.mtl_weight"),
        ({"fc__sigma": None}, r"it has no fc.sigma"),
        ({"fc__fc2__weight": None}, r"no rows fc.fc2.weight"),
        ({"fc__bias": torch.zeros(5)}, r"no place for its fc.bias"),
        ({"fc__fc1__weight": torch.zeros(5, 15)}, r"fc.fc1.weight is \(5, 15\), expected \(5, 16\)"),
        ({"conv1__weight": torch.zeros(4, 3, 5, 5)}, r"first convolution is \(4, 3, 5, 5\)"),
        ({"conv1__weight": None}, r"first convolution is missing"),
    ],
)
def test_every_tensor_has_its_place(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = tmp_path / "state.pth"
    torch.save(changed(made(5, 2, transfer=True).state_dict(), **changes), file)
    with pytest.raises(UserError, match=message):
        read_released(file)
