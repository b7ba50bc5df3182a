"""Weights of image networks: fetched whole, read whatever wrote them, matched name by name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mmcl.backbones.clip_weights import READ_FAILURES
from mmcl.errors import UserError

# Under what checkpoints of a training keep the weights.
CONTAINERS = ("model", "state_dict")
# What stands before the names: of DistributedDataParallel, and of the trained side of MoCo v3 and DINO.
PREFIXES = ("module.", "base_encoder.", "backbone.")
_SHOWN = 5


def check_file(checkpoint: str | None, what: str) -> None:
    """Refuse a checkpoint that is not there.

    Raises:
        UserError: no such file.
    """
    if checkpoint is not None and not Path(checkpoint).expanduser().is_file():
        raise UserError(f"backbone.checkpoint={checkpoint}: no such file. Expected the weights of {what}")


def download(url: str) -> Path:
    """Fetch a file into torch's cache unless it is there, and return it; what stays on the disk is whole.

    Raises:
        OSError, RuntimeError, ValueError, HTTPException: no network, no room, or no such file.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / url.rpartition("/")[2]
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), progress=False)  # beside its place, then moved there
    return file


def reason_of(error: Exception) -> str:
    """Return what an exception says, in one line."""
    lines = str(error).splitlines() or [type(error).__name__]
    return shorten(lines[0], 160)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the named tensors of a network out of a file of safetensors, a state dict or a checkpoint of a training.

    Tensors under ``model`` or ``state_dict`` are found there. Where names begin with one of :data:`PREFIXES`, only
    these are the network's, and lose the prefix: MoCo v3 keeps a second encoder and a predictor beside it.

    Raises:
        UserError: the file is cut short, or holds something else.
    """
    try:
        content: Any = load_file(file) if file.suffix == ".safetensors" else _unpickled(file)
    except READ_FAILURES as error:
        raise UserError(
            f"{file} is no checkpoint that can be read ({reason_of(error)}). Expected whole weights, .safetensors or a "
            "state dict of tensors alone, saved by torch; bring the file again, or save its state dict anew"
        ) from error
    for name in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not any(isinstance(part, Tensor) for part in content.values()):
        raise UserError(f"{file} holds no named tensors, also not under {' or '.join(CONTAINERS)}")
    tensors = {str(name): part for name, part in content.items() if isinstance(part, Tensor)}
    for prefix in PREFIXES:
        inner = {name.removeprefix(prefix): part for name, part in tensors.items() if name.startswith(prefix)}
        tensors = inner or tensors
    return tensors


def load_exactly(
    net: nn.Module, tensors: Mapping[str, Tensor], file: Path, name: str, left_out: Collection[str] = ()
) -> None:
    """Copy weights into a network in its own type, each into its place.

    Args:
        net: the network, without a classifier.
        tensors: as :func:`read_tensors` gives them.
        file: where they come from, for messages.
        name: of the network, for messages.
        left_out: modules whose tensors are neither wanted nor missed, such as ``head``.

    Raises:
        UserError: the weights are another network's; names the tensors that are missing, left over or of another shape.
    """
    expected, given = _without(net.state_dict(), left_out), _without(tensors, left_out)
    faults = [
        *_named("it has no", (key for key in expected if key not in given)),
        *_named("no place for its", (key for key in given if key not in expected)),
        *_named("another shape:", _other_shapes(expected, given)),
    ]
    if faults:
        raise UserError(
            f"{file} does not fit {name}: {'; '.join(faults)}. Check backbone.model (now {name}) against what the file "
            "was trained as, and backbone.checkpoint"
        )
    net.load_state_dict(given, strict=False)


def _unpickled(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)


def _without(tensors: Mapping[str, Tensor], modules: Collection[str]) -> dict[str, Tensor]:
    prefixes = tuple(f"{module}." for module in modules)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefixes)}


def _other_shapes(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Iterable[str]:
    for name, tensor in expected.items():
        if name in given and given[name].shape != tensor.shape:
            yield f"{name} is {tuple(given[name].shape)}, expected {tuple(tensor.shape)}"


def _named(words: str, names: Iterable[str]) -> list[str]:
    """Return one phrase about the first few names and the number of the others; none where there is no name."""
    found = list(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return [f"{words} {', '.join(found[:_SHOWN])}{more}"] if found else []
