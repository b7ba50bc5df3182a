"""Weights of CLIP models: fetched whole or not at all, read from any file that open_clip or OpenAI wrote, checked."""

from __future__ import annotations

import logging
import os
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from textwrap import shorten
from typing import Any

import open_clip
import torch
from filelock import FileLock
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from open_clip.model import convert_to_custom_text_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmcl.errors import UserError

# What the network, the server or the disk can do to a download.
DOWNLOAD_FAILURES = (OSError, RuntimeError, ValueError, HTTPException)
# What torch and safetensors say about a file that is cut short, or is something else.
READ_FAILURES = (
    *(OSError, RuntimeError, ValueError, EOFError, LookupError, AttributeError),
    *(pickle.UnpicklingError, SafetensorError),
)
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
QUICKGELU = "-quickgelu"
# What TorchScript archives, such as OpenAI's, hold beside weights.
NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")


def published_weights(model: str, tag: str) -> dict[str, Any]:
    """Return open_clip's entry about a tag, empty where there is none; QuickGELU or not, a model has one list here."""
    base = model.removesuffix(QUICKGELU)
    names = (model, base, base + QUICKGELU)
    found: dict[str, Any] = next(filter(None, (open_clip.get_pretrained_cfg(name, tag) for name in names)), {})
    return found


def fetch_weights(model: str, tag: str) -> Path:
    """Return the file of published weights, downloaded unless it is there; what stays on the disk is whole.

    Args:
        model: name of an open_clip model.
        tag: one of its tags.

    Raises:
        UserError: no network or no room; names the file to bring.
    """
    source = published_weights(model, tag)
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # it would tell of every try; the error says all
    try:
        if source.get("hf_hub"):
            return _fetch_from_hub(source["hf_hub"])
        return _download(source["url"], Path("~/.cache/clip").expanduser())
    except DOWNLOAD_FAILURES as error:
        raise UserError(
            f"cannot fetch the weights '{tag}' of {model} ({_reason(error)}). On a machine with a network download "
            f"{_files(source)}, copy it anywhere on this machine and type backbone.checkpoint=FILE"
        ) from error


def read_weights(file: Path) -> dict[str, Tensor]:
    """Return the named tensors of a checkpoint: safetensors, a saved state dict, or OpenAI's TorchScript archive.

    Raises:
        UserError: the file is cut short or is no checkpoint.
    """
    try:
        content = _read(file)
    except READ_FAILURES as error:
        raise UserError(
            f"{file} is no checkpoint that can be read ({_reason(error)}). Expected whole weights: .safetensors, a "
            "state dict saved by torch, or OpenAI's .pt; bring the file again"
        ) from error
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(part, Tensor) for part in content.values())
    ):
        raise UserError(f"{file} holds no named tensors. Expected the state dict of a CLIP model")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items() if name not in NO_WEIGHTS}


def load_weights(model: Any, weights: dict[str, Tensor], file: Path, name: str) -> None:
    """Copy weights into a model, each into its place; nothing is resized, left over or left out.

    Args:
        model: an ``open_clip.CLIP`` or ``open_clip.CustomTextCLIP``.
        weights: as :func:`read_weights` gives them.
        file: where they come from, for messages.
        name: of the model, for messages.

    Raises:
        UserError: the weights are another model's; names the first tensor that does not fit.
    """
    expected = model.state_dict()
    if hasattr(model, "text"):
        weights = convert_to_custom_text_state_dict(weights)
    if "logit_scale" in weights and weights["logit_scale"].numel() == 1:
        weights["logit_scale"] = weights["logit_scale"].reshape(expected["logit_scale"].shape)
    mismatch = _first_mismatch(expected, weights)
    if mismatch:
        raise UserError(
            f"{file} does not fit {name}: {mismatch}. Check backbone.model (now {name}) against what the file was "
            "trained as, and backbone.checkpoint"
        )
    model.load_state_dict(weights)


def _first_mismatch(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    for name, tensor in expected.items():
        shape = tuple(tensor.shape)
        if name not in given:
            return f"it has no {name} {shape}"
        if given[name].shape != tensor.shape:
            return f"its {name} is {tuple(given[name].shape)}, expected {shape}"
    surplus = [name for name in given if name not in expected]
    return f"its {surplus[0]} {tuple(given[surplus[0]].shape)} has no place there" if surplus else ""


def _read(file: Path) -> Any:
    if file.suffix == ".safetensors":
        return load_file(file)
    if _is_torchscript(file):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch has deprecated TorchScript; the files stay
            return torch.jit.load(file, map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
    return torch.load(file, map_location="cpu", weights_only=True)


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(Path(name).name == "constants.pkl" for name in archive.namelist())


def _fetch_from_hub(place: str) -> Path:
    """Fetch ``organisation/repository/file``; without a file, the first there is of the usual names."""
    repository, _, name = place.rpartition("/")
    first, *others = [name] if name else HUB_FILES
    try:
        return Path(hf_hub_download(repository, first))
    except LocalEntryNotFoundError:
        raise  # no network: the other name is as far away
    except EntryNotFoundError:
        if not others:
            raise
        return Path(hf_hub_download(repository, others[0]))


def _download(url: str, folder: Path) -> Path:
    """Download a file beside its place and move it there: open_clip itself would leave half a file after a break."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / url.rpartition("/")[2]
    with FileLock(folder / f".{target.name}.lock"), tempfile.TemporaryDirectory(dir=folder) as part:
        if not target.is_file():
            os.replace(open_clip.download_pretrained_from_url(url, cache_dir=part), target)
    return target


def _files(source: Mapping[str, Any]) -> str:
    files = []
    if source.get("hf_hub"):
        repository, _, name = source["hf_hub"].rpartition("/")
        files.append(f"{name or HUB_FILES[0]} from the hub repository {repository}")
    if source.get("url"):
        files.append(f"{source['url'].rpartition('/')[2]} from {source['url']}")
    return " or ".join(files)


def _reason(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return shorten(lines[0], 160)
