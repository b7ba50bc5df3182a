"""A finished run of MML: what it learned, and the encoders that it learned behind."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmcl.backbones.dual_encoder import DualEncoder
from mmcl.config.components import build, locate
from mmcl.config.identity import identity
from mmcl.engine.encoding import CachedEncoders
from mmcl.engine.run_directory import read_of_run
from mmcl.engine.state import StateFile
from mmcl.engine.trainers import make_trainer
from mmcl.errors import UserError
from mmcl.memory.class_memory import ClassMemory
from mmcl.methods.mml.learner import MmlLearner
from mmcl.methods.mml.mml import Mml, MmlConfig
from mmcl.randomness import generator

ONE_DEVICE = {"accelerator": "auto", "devices": 1, "num_nodes": 1, "strategy": "auto"}
LEARNED = "learner."
AGAIN = "Bring a good copy, or run again with force=true"


class FinishedRun:
    """A finished run of MML, whose learner can answer from any memory of the same encoders.

    Args:
        folder: directory of the run, or its ``result.json``.
        cache: folder of encoded features; None takes the run's.

    Attributes:
        folder: directory of the run.
        config: its configuration, computing on one device.
        keys: those of its method.

    Raises:
        UserError: the directory is of no run, of another method or version, of one that has not finished, or of one
            whose encoders are not known or have changed since.
    """

    def __init__(self, folder: Path, cache: Path | None = None) -> None:
        folder = folder.expanduser()
        self.folder = folder.parent if folder.name == "result.json" else folder
        owner, result = (read_of_run(self.folder / name, "of method=mml") for name in ("identity.json", "result.json"))
        if not isinstance(owner.get("config"), dict):
            raise UserError(f"{self.folder / 'identity.json'} has another form. {AGAIN}")
        self.config: DictConfig = OmegaConf.create(owner["config"])
        self._refuse_other_runs(owner.get("identity"), result)
        self.keys = self._keys()
        self.config.trainer = OmegaConf.merge(self.config.trainer, ONE_DEVICE)
        self.cache = Path(self.config.paths.cache).expanduser() if cache is None else cache.expanduser()

    def _refuse_other_runs(self, known_as: Any, result: dict[str, Any]) -> None:
        config = self.config
        if not issubclass(locate(config.method["_target_"]), Mml):
            raise UserError(f"{self.folder} is a run of method={config.method.name}; expected one of method=mml")
        if result.get("status") != "finished":
            raise UserError(
                f"{self.folder} has not finished (status {result.get('status')}). Type again: {result.get('command')}"
            )
        if "features_precision" not in config.benchmark:
            raise UserError(
                f"{self.folder} learned from features of a file (benchmark={config.benchmark.name}), whose encoders "
                "are not known. Bring a run of a benchmark of images, such as benchmark=shapes_memory"
            )
        if identity(config) != known_as:
            raise UserError(
                f"{self.folder} has the identity {known_as}, by its settings and files it would be {identity(config)}: "
                f"the weights of backbone={config.backbone.name} have changed or moved since. Bring them back"
            )

    def _keys(self) -> MmlConfig:
        node = self.config.method
        try:
            merged = OmegaConf.merge(OmegaConf.structured(locate(node["_target_"]).Config), node)
            keys: MmlConfig = OmegaConf.to_object(merged)  # type: ignore[assignment]
        except OmegaConfBaseException as error:
            raise UserError(f"{self.folder} was made by a version with other keys ({error}). Run it again") from error
        return keys

    @cached_property
    def device(self) -> torch.device:
        """Where answers are computed."""
        device: torch.device = make_trainer(self.config.trainer).strategy.root_device
        return device

    @cached_property
    def encoder(self) -> DualEncoder:
        """The frozen encoders."""
        loaded: DualEncoder = build(self.config.backbone).load()
        return loaded

    def encoders(self, cache: Path | None = None) -> CachedEncoders:
        """Return the encoders behind the cache, or behind another folder."""
        return CachedEncoders.configured(self.encoder, cache or self.cache, self.config)

    @cached_property
    def learner(self) -> MmlLearner:
        """The learner, in the type of its weights.

        Raises:
            UserError: the run's state is missing or damaged.
        """
        state = StateFile(self.folder / "state").load().method or {}
        weights = {name.removeprefix(LEARNED): value for name, value in state.items() if name.startswith(LEARNED)}
        if not weights:
            raise UserError(f"{self.folder / 'state'} has no learned weights: the state is missing or damaged. {AGAIN}")
        made = MmlLearner(self.encoder.dimension, self.keys.temperature, generator(self.config.seed))
        made.to(next(iter(weights.values())).dtype).load_state_dict(weights)
        return made.to(self.device).eval()

    def empty_memory(self) -> ClassMemory:
        """Return a memory for rows of these encoders, with prototypes as in the run."""
        return ClassMemory(self.encoders().digest, self.keys.prototype_items, self.keys.storage)
