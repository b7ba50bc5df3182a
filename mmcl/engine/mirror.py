"""Copies a run's figures to wandb, if the user wants that; offline there is no account, no prompt and no network."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmcl.engine.run_directory import MetricsFile, RunDirectory
from mmcl.protocol import Task


class Mirror:
    """A wandb run beside the run's own files, or nothing. One x-axis runs through all tasks: the epoch of the run.

    Args:
        config: the checked configuration; ``logger.name=wandb`` switches it on.
        directory: wandb's files go below it.
        enabled: whether this process logs at all.
    """

    def __init__(self, config: DictConfig, directory: RunDirectory, enabled: bool) -> None:
        self.config, self.directory = config, directory
        self.enabled = enabled and config.logger.name == "wandb"
        self.wandb_run: Any = None
        self.logged: set[tuple[str, ...]] = set()

    def __enter__(self) -> Mirror:
        if self.enabled:
            import wandb  # takes seconds, and most runs do without

            self.wandb_run = wandb.init(
                project=self.config.logger.project,
                mode=self.config.logger.mode,
                dir=self.directory.path,
                id=self.directory.identity,
                resume="allow" if self.config.logger.mode == "online" else None,
                name=f"{self.config.method.name}-{self.config.benchmark.name}-seed{self.config.seed}",
                config=OmegaConf.to_container(self.config, resolve=True),  # type: ignore[arg-type]
                settings=wandb.Settings(silent=True, console="off"),
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.wandb_run is not None:
            self.wandb_run.finish()

    def log(self, metrics: MetricsFile, task: Task) -> None:
        """Log everything that ``metrics.csv`` holds and wandb does not yet, in order."""
        if self.wandb_run is None:
            return
        epochs: dict[tuple[str, str, str], dict[str, float]] = {}
        for (task_index, stage, epoch, name), value in metrics.rows.items():
            epochs.setdefault((task_index, stage, epoch), {})[f"{stage}/{name}"] = value
        for step, (position, values) in enumerate(epochs.items()):
            if position not in self.logged:
                self.wandb_run.log({**values, "task": int(position[0])}, step=step)
                self.logged.add(position)
