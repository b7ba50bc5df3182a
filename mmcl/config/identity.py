"""Who a run is: a hash of what decides its figures, without paths, hardware or a clock."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmcl.config.components import locate

DECIDING_TRAINER_KEYS = ("precision", "matmul_precision")
WITHOUT_INFLUENCE = {"data", "workers", "steps_per_block", "download", "verify", "encode_batch_size"}
# Files that decide figures by what they hold, wherever they lie.
CONTENT_KEYS = (
    ("method", "first_task_weights"),
    ("benchmark", "file"),
    ("backbone", "checkpoint"),
    ("backbone", "weights"),
)


def deciding_part(config: DictConfig) -> dict[str, Any]:
    """Return the part of a checked configuration that decides the figures of a run."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    part = {name: plain[name] for name in ("seed", "memory", "backbone", "method")}
    part["benchmark"] = {key: value for key, value in plain["benchmark"].items() if key not in WITHOUT_INFLUENCE}
    # A backbone may ship a file that stands for null.
    shipped = getattr(locate(part["backbone"]["_target_"]), "shipped_files", {})
    for group, name in CONTENT_KEYS:
        file = part[group].get(name) or (shipped.get(name) if group == "backbone" else None)
        if file is not None:
            part[group][name] = _content_digest(Path(file).expanduser())
    told_by = getattr(locate(part["benchmark"]["_target_"]), "told_by", None)
    texts = [] if told_by is None else told_by(plain["benchmark"])
    if texts:
        part["benchmark"]["texts"] = [_content_digest(file) for file in texts]
    if part["benchmark"].get("file") is not None:
        part["benchmark"]["name_of_file"] = Path(plain["benchmark"]["file"]).stem  # which names the task
    part["trainer"] = {key: plain["trainer"][key] for key in DECIDING_TRAINER_KEYS}
    return part


def identity(config: DictConfig) -> str:
    """Return the identity of a run, 16 hexadecimal digits."""
    return _digest(deciding_part(config))


def run_directory(config: DictConfig) -> Path:
    """Return ``runs/<benchmark>/<method>/<configuration>/seed<seed>``: runs that differ by seed alone lie together."""
    if config.paths.run is not None:
        return Path(config.paths.run).expanduser()
    part = deciding_part(config)
    seed = part.pop("seed")
    for name in ("order_seed", "split_seed"):
        if part["benchmark"].get(name) == seed:
            part["benchmark"][name] = "seed"
    base: Path = Path(config.paths.runs).expanduser()
    return base / str(config.benchmark.name) / str(config.method.name) / _digest(part)[:8] / f"seed{seed}"


def _digest(part: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]


def _content_digest(file: Path) -> str:
    """What a file holds decides figures, where it lies does not; a missing one is reported when it is read.

    Of a folder, the names of its files count with what they hold, those of folders below it, too.
    """
    if file.is_dir():
        files = sorted(part for part in file.rglob("*") if part.is_file())
        return _digest({part.relative_to(file).as_posix(): _content_digest(part) for part in files})
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else str(file)
