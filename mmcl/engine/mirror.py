"""A copy of a run's figures in wandb, if the user wants one; offline there is no account, no prompt and no network."""

from __future__ import annotations

import io
import logging
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from mmcl.config.identity import run_directory
from mmcl.engine.preemption import PreemptedError
from mmcl.engine.provenance import provenance
from mmcl.engine.run_directory import MetricsFile, RunDirectory
from mmcl.errors import INTERRUPTED, PREEMPTED, UserError
from mmcl.results.keep import without_paths
from mmcl.whole_files import write_whole

SUMMARISED = ("average_incremental_accuracy", "last_accuracy", "forgetting")
MODEL = ("model_bytes", "head_bytes", "buffer_bytes")
CELLS = 10_000  # of a confusion matrix, which is as much as wandb shows
ID_FILE = "wandb_id.txt"
log = logging.getLogger(__name__)


class Mirror:
    """A wandb run beside the run's own files, or nothing.

    Its steps count the epochs and evaluations of the whole run, in the order of ``metrics.csv``. A resumed run goes on
    under the id that it began with: online where wandb's server left off, offline in a file that holds the whole
    history, in place of the one that was cut. What goes wrong in wandb after the start costs the mirror, not the run.

    Args:
        config: the checked configuration; ``logger.name=wandb`` switches it on.
        directory: wandb's files go below it.
        enabled: whether this process logs at all.
    """

    def __init__(self, config: DictConfig, directory: RunDirectory, enabled: bool) -> None:
        self.config, self.directory = config, directory
        self.enabled = enabled and config.logger.name == "wandb"
        self.wandb_run: Any = None
        self.steps: dict[tuple[str, ...], int] = {}
        self.rows_seen = 0

    def __enter__(self) -> Mirror:
        if self.enabled:
            try:
                self.wandb_run = self._start()
            except Exception as error:  # wandb fails in many ways: no account, no network, no disk, no service
                raise UserError(
                    f"logger=wandb cannot start: {str(error).rstrip('.')}. Type logger.mode=offline, which needs no "
                    "account and no network, or log in first (wandb login), or do without: logger=csv"
                ) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._send(lambda wandb_run: wandb_run.finish(exit_code=_exit_code(error)))

    def follow(self, metrics: MetricsFile | None) -> None:
        """Log what the file holds and wandb does not yet, now and whenever it grows."""
        if self.wandb_run is None or metrics is None:
            return
        metrics.follower = self._log
        self._log(metrics)
        if self.config.logger.mode == "offline":
            self._forget_cut_files()

    def conclude(
        self,
        readouts: Mapping[str, Mapping[str, Any]],
        report: Mapping[str, Any],
        confusions: Mapping[str, Tensor],
        class_names: list[str],
        wall_seconds: float,
    ) -> None:
        """Log the tables, the figure and the summary of a run that has gone through all tasks.

        Args:
            readouts: figures of each readout, as in ``result.json``.
            report: bytes after the last task.
            confusions: counts ``(C, C)`` of each readout after the last task.
            class_names: in the order of these classes.
            wall_seconds: of the run.
        """
        last = max(self.steps.values(), default=0)
        self._send(lambda wandb_run: wandb_run.log(pictured(readouts, confusions, class_names), step=last))
        summary = {f"{name}/{key}": figures.get(key) for name, figures in readouts.items() for key in SUMMARISED}
        summary |= {"model_bytes": sum(report[part] for part in MODEL), "memory_bytes": report["memory_bytes"]}
        self._send(lambda wandb_run: wandb_run.summary.update({**summary, "wall_seconds": wall_seconds}))

    # ------------------------------------------------------------------ wandb

    def _start(self) -> Any:
        import wandb  # takes seconds, and most runs do without

        config, logger = self.config, self.config.logger
        method, benchmark = config.method.name, config.benchmark.name
        return wandb.init(
            project=logger.project,
            mode=logger.mode,
            dir=self.directory.path,
            id=self._id(),
            resume="allow",
            name=f"{method}-{benchmark}-seed{config.seed}",
            group=f"{method}-{benchmark}-{configuration(config)}",
            job_type=method,
            config={**public(config), "identity": self.directory.identity, "provenance": provenance()},
            # wandb's own record of the machine would name its folders
            settings=wandb.Settings(
                silent=True,
                console="off",
                x_disable_meta=True,
                disable_git=True,
                disable_code=True,
                disable_job_creation=True,
            ),
        )

    def _id(self) -> str:
        """Return the id that the run began with; a run that is forced afresh is another one in wandb."""
        file = self.directory.path / ID_FILE
        if not file.is_file():
            made = f"{self.directory.identity}-{secrets.token_hex(3)}"
            write_whole(file, lambda part: part.write_text(made))
        return file.read_text().strip()

    def _forget_cut_files(self) -> None:
        """Delete the offline files of earlier starts, whose history the present one has logged again."""
        present = Path(self.wandb_run.dir).parent
        # Of two starts within one second, wandb counts the second one behind the id.
        for folder in (self.directory.path / "wandb").glob(f"offline-run-*-{self.wandb_run.id}*"):
            if folder != present:
                shutil.rmtree(folder, ignore_errors=True)

    def _log(self, metrics: MetricsFile) -> None:
        """Log the rows that are new; those of one epoch belong to one step."""
        fresh: dict[tuple[str, ...], dict[str, float]] = {}
        for (task, stage, epoch, name), value in list(metrics.rows.items())[self.rows_seen :]:
            fresh.setdefault((task, stage, epoch), {"task": int(task)})[f"{stage}/{name}"] = value
        self.rows_seen = len(metrics.rows)
        for position, values in fresh.items():
            self._log_step(self.steps.setdefault(position, len(self.steps)), values)

    def _log_step(self, step: int, values: Mapping[str, float]) -> None:
        """Log a step that wandb's server does not have from an earlier start."""
        if self.wandb_run is not None and step >= self.wandb_run.starting_step:
            self._send(lambda wandb_run: wandb_run.log(values, step=step))

    def _send(self, action: Callable[[Any], object]) -> None:
        """Do something with the wandb run; if that fails, go on without it."""
        if self.wandb_run is None:
            return
        try:
            action(self.wandb_run)
        except Exception as error:
            self.wandb_run = None
            log.warning(
                "wandb has stopped (%s). The run goes on without it; metrics.csv and result.json get all figures. Free "
                "some space or log in (wandb login) before the next one, or type logger=csv",
                error,
            )


# ------------------------------------------------------------------ what is logged


def public(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain values without a folder of this machine."""
    content = {"config": OmegaConf.to_container(config, resolve=True), "command": ""}
    plain: dict[str, Any] = without_paths(content)["config"]
    return plain


def configuration(config: DictConfig) -> str:
    """Return the digest of a configuration without its seed, which names the folder of its runs."""
    return run_directory(OmegaConf.merge(config, {"paths": {"run": None}})).parent.name  # type: ignore[arg-type]


def matrix_rows(matrix: list[list[float | None]]) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of an accuracy matrix ``(T, T)``: a row for each task after which was measured."""
    columns = ["after task", *(f"task {task}" for task in range(len(matrix)))]
    return columns, [[task, *row] for task, row in enumerate(matrix)]


def confusion_rows(counts: Tensor, class_names: list[str]) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of the largest cells that are not 0 of counts ``(C, C)``, at most :data:`CELLS`."""
    cells = counts.flatten().sort(descending=True, stable=True)
    chosen = cells.indices[: min(int((counts > 0).sum()), CELLS)].tolist()
    names, width = class_names[-len(counts) :], len(counts)  # of a data set, the classes are those of the last one
    rows = [[names[cell // width], names[cell % width], int(counts.flatten()[cell])] for cell in chosen]
    return ["class", "answer", "samples"], rows


def pictured(
    readouts: Mapping[str, Mapping[str, Any]], confusions: Mapping[str, Tensor], class_names: list[str]
) -> dict[str, Any]:
    """Return the tables and the figure as wandb wants them; see :meth:`Mirror.conclude`."""
    import wandb
    from PIL import Image

    content: dict[str, Any] = {"accuracy": wandb.Image(Image.open(io.BytesIO(accuracy_curves(readouts))))}
    for name, figures in readouts.items():
        for title, (columns, rows) in (
            ("accuracy_matrix", matrix_rows(figures["accuracy_matrix"])),
            ("confusion", confusion_rows(confusions[name], class_names)),
        ):
            content[f"{title}/{name}"] = wandb.Table(columns=list(columns), data=rows)
    return content


def accuracy_curves(readouts: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Draw the accuracy of every readout over the tasks; return a PNG."""
    from matplotlib.figure import Figure  # takes a second

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, figures in readouts.items():
        curve = [float("nan") if value is None else 100 * value for value in figures["accuracy_curve"]]
        axes.plot(range(1, len(curve) + 1), curve, marker="o", label=name)
    axes.set(xlabel="task", ylabel="accuracy in %", ylim=(0, 100))
    axes.legend()
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100)
    return png.getvalue()


def _exit_code(error: BaseException | None) -> int:
    if error is None:
        return 0
    known = {KeyboardInterrupt: INTERRUPTED, PreemptedError: PREEMPTED}
    return known.get(type(error)) or int(getattr(error, "exit_code", 1))
