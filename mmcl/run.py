"""``python -m mmcl.run +method=memo``: compose, check, run. The whole journey of a run begins here.

1. What was typed is brought into one form, composed with ``conf/`` and checked; a mistake ends here with exit code 2.
2. In a sweep, each job runs as a plain run in a process of its own: one after the other, on the slots of this machine
   (``hydra/launcher=gpu_pool``) or as jobs of a cluster (``hydra/launcher=submitit_slurm``).
3. The engine builds benchmark and method and goes through the tasks (``mmcl/engine/sequence.py``).
4. The last line printed is the path of ``result.json``.

Asked to stop by a signal, a run saves, and exits with a code that launchers read (``mmcl/engine/preemption.py``).
"""

from __future__ import annotations

import shutil
import sys
from contextlib import nullcontext

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig

from mmcl.config.compose import compose_run, compose_sweep
from mmcl.config.identity import run_directory
from mmcl.config.locate import shipped_folder
from mmcl.config.method_files import load_method_files
from mmcl.config.overrides import documented, flags_of_a_job, normalise
from mmcl.config.strict import checked
from mmcl.engine.assemble import run
from mmcl.engine.preemption import PreemptedError, listening
from mmcl.engine.processes import is_first_process, started_from_outside
from mmcl.engine.provenance import command
from mmcl.errors import INTERRUPTED, PREEMPTED, UserError
from mmcl.launch.gpu_pool import register_gpu_pool
from mmcl.launch.isolation import run_as_plain_run
from mmcl.launch.jobs import Terminated
from mmcl.launch.objective import check_objective, value_of

# Flags with which Hydra prints something and runs nothing, or composes from elsewhere.
HYDRA_FLAGS = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--config-dir", "-cd")


@hydra.main(version_base="1.3", config_path=str(shipped_folder("conf")), config_name="config")
def hydra_job(config: DictConfig) -> float | None:
    """Run one composed configuration, here or, as a job of a sweep, in a process of its own.

    Returns:
        The figure that ``objective`` names, which sweepers are led by; None without one.
    """
    overrides = list(HydraConfig.get().overrides.task)
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    if in_sweep and config.trainer.isolate:
        run_as_plain_run([*flags_of_a_job(sys.argv[1:]), *overrides])
        return value_of(config.objective, run_directory(checked(config)) / "result.json")
    # Leaving the process would take the other jobs of a sweep along; Hydra reports the error after them.
    with listening(), nullcontext() if in_sweep else ending_in_exit_code():
        typed = [word for word in documented(overrides) if word.partition("=")[0] != "eval_only"]  # it trains nothing
        result = run(checked(config), command(typed))
        if is_first_process():
            sys.stdout.write(f"{result}\n")
        return value_of(config.objective, result) if in_sweep else None
    return None


class ending_in_exit_code:  # noqa: N801 - reads as a word of the with statement
    """Turns errors that a user can mend into a message on standard error and exit code 2, and a stop into its own."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UserError):
            sys.stderr.write(f"mmcl: {error}\n")
            sys.exit(error.exit_code)
        if isinstance(error, PreemptedError | SIGTERMException | Terminated):
            _leave_preempted(str(error))
        # Lightning turns an interrupt into an exit of its own.
        if isinstance(error, KeyboardInterrupt) or isinstance(error and error.__context__, KeyboardInterrupt):
            sys.stderr.write("mmcl: interrupted. The same command goes on where it was.\n")
            sys.exit(INTERRUPTED)


def _leave_preempted(place: str) -> None:
    """Exit, and say where the run stopped."""
    if is_first_process():
        afresh = any(word.lstrip("+").lower() == "force=true" for word in sys.argv)
        words = "same command without force=true" if afresh else "same command"
        sys.stderr.write(f"mmcl: stopped{place and f' {place}'}, as asked. The {words} goes on there.\n")
    # Whoever started this process and the others reads the code. Lightning's first process started this one: it would
    # take any other code than 0 for an accident, and be killed before it has written everything.
    sys.exit(PREEMPTED if is_first_process() or started_from_outside() else 0)


def main() -> None:
    """Check everything that was typed, then hand over to Hydra."""
    with ending_in_exit_code():
        load_method_files()
        register_gpu_pool()
        arguments = normalise(sys.argv[1:])
        if not any(argument.partition("=")[0] in HYDRA_FLAGS for argument in arguments):
            sweep = "-m" in arguments or "--multirun" in arguments
            _check_sweep(arguments) if sweep else check_objective(compose_run(arguments).objective)
        sys.argv[1:] = arguments
        hydra_job()


def _check_sweep(arguments: list[str]) -> None:
    """Compose all jobs of a sweep, or enough of them, and see that a sweeper which is led by something is."""
    objectives = {config.objective for config in compose_sweep(arguments)}
    for objective in objectives:
        check_objective(objective)
    if "hydra/launcher=submitit_slurm" in arguments and shutil.which("srun") is None:
        raise UserError("hydra/launcher=submitit_slurm: no srun here. Without SLURM, type: hydra/launcher=gpu_pool")
    led = [word for word in arguments if word.startswith("hydra/sweeper=") and word != "hydra/sweeper=basic"]
    if led and objectives == {None}:
        raise UserError(f"{led[0]} needs to know what is good. Type: objective=head_validation/last_accuracy")


if __name__ == "__main__":
    main()
