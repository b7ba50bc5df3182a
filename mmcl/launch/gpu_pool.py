"""``hydra/launcher=gpu_pool``: the jobs of a sweep on the slots of one machine."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mmcl.config.identity import run_directory
from mmcl.config.overrides import documented, flags_of_a_job
from mmcl.config.strict import checked
from mmcl.errors import UserError
from mmcl.launch.isolation import JobFailedError, plain_command
from mmcl.launch.jobs import Job, Outcome, terminated_as_interrupt
from mmcl.launch.objective import value_of
from mmcl.launch.slot_pool import run_in_slots
from mmcl.launch.slots import Slot, find_slots
from mmcl.results.store import read_result

# The name in conf/hydra/launcher/gpu_pool.yaml. Hydra builds launchers by names in the package hydra_plugins alone,
# where it looks for the files of other distributions. This one belongs to mmcl and needs no search: it is entered under
# such a name while its module stays what it is.
PLUGIN = "hydra_plugins.mmcl.GpuPoolLauncher"
LONGEST_NAME = 80
UNFIT = r"[^\w.=,-]+"  # for the name of a file


def register_gpu_pool() -> None:
    """Make the launcher known to Hydra, before Hydra begins."""
    Plugins.instance().class_name_to_class[PLUGIN] = GpuPoolLauncher


class GpuPoolLauncher(Launcher):
    """Runs each job as a plain run on a slot; see ``conf/hydra/launcher/gpu_pool.yaml``.

    Args:
        slots: at most so many GPUs, or exactly so many slots of the CPU; None is all there are.
        requeues: how often a preempted job is put back.
        logs: folder of what the jobs print.
    """

    def __init__(self, slots: int | None, requeues: int, logs: str) -> None:
        self.slots, self.requeues, self.logs = slots, requeues, Path(logs).expanduser()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember what belongs to the sweep; the jobs call the task function themselves."""
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs and return what they gave, in the order asked; those that failed are listed in the end.

        Raises:
            KeyboardInterrupt: the jobs have saved what they need to go on and stopped.
        """
        configs = [self._config_of(overrides) for overrides in job_overrides]
        words = [tuple(documented([word])[0] if "=" in word else word for word in job) for job in job_overrides]
        names = [f"{initial_job_idx + number:03d}_{name}" for number, name in enumerate(names_of(words))]
        lengths = [seconds_before(config) for config in configs]
        jobs = [Job(*job) for job in zip(words, lengths, names, strict=True)]
        slots = slots_for(configs, self.slots)
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)  # sweepers write into it
        _say(f"{len(jobs)} jobs on {len(slots)} slots: {', '.join(slot.name for slot in slots)}")
        flags = flags_of_a_job(sys.argv[1:])
        outcomes: dict[str, Outcome] = {}
        with terminated_as_interrupt():
            for outcome in run_in_slots(jobs, slots, self.logs, requeues=self.requeues, flags=flags, say=_say):
                outcomes[outcome.job.name] = outcome
                _say(f"{len(outcomes)} of {len(jobs)} done: {_described(outcome)}")
        _list_failures(outcomes.values())
        return [self._returned(job, outcomes[job.name], initial_job_idx + index) for index, job in enumerate(jobs)]

    def _config_of(self, overrides: Sequence[str]) -> DictConfig:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        return checked(plain)

    def _returned(self, job: Job, outcome: Outcome, index: int) -> JobReturn:
        """Return what the sweeper wants to know of a job."""
        returned = JobReturn(overrides=job.overrides, task_name=str(index), status=JobStatus.FAILED)
        try:
            if outcome.result is None:
                raise JobFailedError(outcome.error)
            returned.return_value = value_of(self.config.objective, outcome.result)
            returned.status = JobStatus.COMPLETED
        except (JobFailedError, UserError) as error:
            returned.return_value = error
        return returned


def names_of(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Name jobs by the overrides in which they differ, and by a digest of all, fit for files."""
    common = set(jobs[0]).intersection(*jobs)
    names = []
    for words in jobs:
        own = ",".join(word.lstrip("+") for word in words if word not in common)
        digest = hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]
        names.append(f"{re.sub(UNFIT, '_', own)[:LONGEST_NAME]}_{digest}".lstrip("_"))
    return names


def seconds_before(config: DictConfig) -> float | None:
    """Return the mean wall seconds of finished runs that differ by seed alone; their directories lie together."""
    seconds = []
    for path in run_directory(config).parent.glob("*/result.json"):
        try:
            result = read_result(path)
        except (OSError, ValueError):
            continue  # somebody else's file; the store names it
        wall = result.timing.get("wall_seconds")
        if result.finished and isinstance(wall, (int, float)):
            seconds.append(float(wall))
    return fmean(seconds) if seconds else None


def slots_for(configs: Sequence[DictConfig], count: int | None) -> list[Slot]:
    """Return slots on which all jobs can run.

    Raises:
        UserError: a job wants several GPUs, or a GPU and none is free.
    """
    wanted = {str(config.trainer.accelerator) for config in configs}
    accelerator = "gpu" if "gpu" in wanted else "cpu" if wanted == {"cpu"} else "auto"
    slots = find_slots(count, accelerator)
    several = [config.trainer for config in configs if config.trainer.accelerator != "cpu"]
    if accelerator != "cpu" and any(trainer.devices not in (1, "1") or trainer.num_nodes != 1 for trainer in several):
        raise UserError(
            "hydra/launcher=gpu_pool gives each job one GPU; a job wants several (trainer.devices, trainer.num_nodes). "
            "Type for example: trainer=gpu, or leave hydra/launcher out"
        )
    return slots


def _described(outcome: Outcome) -> str:
    if outcome.result is not None:
        return f"{outcome.result} ({outcome.seconds:.0f} s)"
    return f"failed: {outcome.job.name}: {outcome.error}"


def _list_failures(outcomes: Iterable[Outcome]) -> None:
    failed = [outcome for outcome in outcomes if outcome.result is None]
    if failed:
        _say(f"{len(failed)} jobs failed:")
    for outcome in failed:
        _say(f"  {plain_command(outcome.job.overrides)}\n    {outcome.error}\n    log: {outcome.log}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
