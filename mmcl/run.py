"""``python -m mmcl.run +method=memo``: compose, check, run. The whole journey of a run begins here.

1. What was typed is brought into one form, composed with ``conf/`` and checked; a mistake ends here with exit code 2.
2. In a sweep, each job runs as a plain run in a process of its own.
3. The engine builds benchmark and method and goes through the tasks (``mmcl/engine/sequence.py``).
4. The last line printed is the path of ``result.json``.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mmcl.config.compose import compose_run, compose_sweep
from mmcl.config.locate import shipped_folder
from mmcl.config.method_files import load_method_files
from mmcl.config.overrides import documented, flags_of_a_job, normalise
from mmcl.config.strict import checked
from mmcl.engine.assemble import run
from mmcl.engine.isolation import run_as_plain_run
from mmcl.engine.processes import is_first_process
from mmcl.engine.provenance import command
from mmcl.errors import INTERRUPTED, UserError

# Flags with which Hydra prints something and runs nothing, or composes from elsewhere.
HYDRA_FLAGS = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--config-dir", "-cd")


@hydra.main(version_base="1.3", config_path=str(shipped_folder("conf")), config_name="config")
def hydra_job(config: DictConfig) -> None:
    """Run one composed configuration, here or, as a job of a sweep, in a process of its own."""
    overrides = list(HydraConfig.get().overrides.task)
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    if in_sweep and config.trainer.isolate:
        run_as_plain_run([*flags_of_a_job(sys.argv[1:]), *overrides])
        return
    # Leaving the process would take the other jobs of a sweep along; Hydra reports the error after them.
    with nullcontext() if in_sweep else ending_in_exit_code():
        typed = [word for word in documented(overrides) if word.partition("=")[0] != "eval_only"]  # it trains nothing
        result = run(checked(config), command(typed))
        if is_first_process():
            sys.stdout.write(f"{result}\n")


class ending_in_exit_code:  # noqa: N801 - reads as a word of the with statement
    """Turns errors that a user can mend into a message on standard error and exit code 2."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UserError):
            sys.stderr.write(f"mmcl: {error}\n")
            sys.exit(error.exit_code)
        # Lightning turns an interrupt into an exit of its own.
        if isinstance(error, KeyboardInterrupt) or isinstance(error and error.__context__, KeyboardInterrupt):
            sys.stderr.write("mmcl: interrupted. The same command goes on where it was.\n")
            sys.exit(INTERRUPTED)


def main() -> None:
    """Check everything that was typed, then hand over to Hydra."""
    with ending_in_exit_code():
        load_method_files()
        arguments = normalise(sys.argv[1:])
        if not any(argument.partition("=")[0] in HYDRA_FLAGS for argument in arguments):
            sweep = "-m" in arguments or "--multirun" in arguments
            compose_sweep(arguments) if sweep else compose_run(arguments)
    sys.argv[1:] = arguments
    hydra_job()


if __name__ == "__main__":
    main()
