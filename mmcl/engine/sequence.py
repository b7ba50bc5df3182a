"""The journey of a run: tasks, stages, evaluation, and a state saved after each, from which a killed run goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence as Entries
from dataclasses import asdict
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torchmetrics import MetricCollection

from mmcl.benchmarks.base import Benchmark
from mmcl.benchmarks.online import OnlineBenchmark
from mmcl.engine.allocator import keep_freed_memory
from mmcl.engine.evaluation import evaluate
from mmcl.engine.exemplar_record import KeepsExemplarRecord, write_exemplar_record
from mmcl.engine.mirror import Mirror
from mmcl.engine.online import evaluate_online, online_metrics, write_trace
from mmcl.engine.predictions import Recorder, file_of, write_predictions
from mmcl.engine.preemption import stop_if_asked
from mmcl.engine.processes import is_first_process, same_memory
from mmcl.engine.progress import Progress
from mmcl.engine.results import result_of, task_line, with_oracles
from mmcl.engine.retrieved import LooksUp, write_retrieved
from mmcl.engine.run_directory import MetricsFile, RunDirectory
from mmcl.engine.stages import fit_stage, forget_checkpoints
from mmcl.engine.state import StateFile, grow, restore_method
from mmcl.engine.stream import evaluate_stream, forget_stream
from mmcl.engine.trainers import make_trainer
from mmcl.engine.versions import on_cpu, tensors
from mmcl.methods.base import Method
from mmcl.metrics.readouts import confusion_matrix, figures, load_state, readout_metrics, synced_state
from mmcl.protocol import ClassTask, DatasetTask, MemoryTask, StreamTask, Task
from mmcl.randomness import key
from mmcl.whole_files import write_whole


class Sequence:
    """One method on its way through one benchmark's tasks.

    Args:
        config: the checked configuration.
        benchmark: set up.
        method: freshly built.
        directory: claimed by this run.
        command: what to type to get this run again.
    """

    def __init__(
        self, config: DictConfig, benchmark: Benchmark, method: Method[Any], directory: RunDirectory, command: str
    ) -> None:
        self.config, self.benchmark, self.method = config, benchmark, method
        self.directory, self.command = directory, command
        self.writes = is_first_process()
        self.state_file = StateFile(directory.state)
        self.state = self.state_file.load()
        self.metrics = MetricsFile(directory.path / "metrics.csv") if self.writes else None
        self.readouts = metrics_of(method, benchmark)
        self.device = make_trainer(config.trainer).strategy.root_device
        if self.device.type == "cpu":
            keep_freed_memory()
        self.began = time.perf_counter() - self.state.wall_seconds

    def run(self) -> None:
        """Go through all tasks that are not done."""
        task_count = len(self.benchmark.task_sizes)
        mirror = Mirror(self.config, self.directory, enabled=self.writes)
        self._restore()
        with mirror, Progress(task_count, self.writes, self.config.trainer.progress) as self.progress:
            mirror.follow(self.metrics)
            for index in range(self.state.task, task_count):
                stop_if_asked(f"before task {index + 1}")
                task = self.benchmark.task(index)
                self._run_task(task)
                self._finish_task(task)
            seconds = time.perf_counter() - self.began
            mirror.conclude(self.values, self.state.bytes[-1], self.confusions, self.benchmark.class_names, seconds)
        self._write_result("finished")

    def pause(self) -> None:
        """Leave a result that says how far the run has come; the same command goes on from there."""
        self._write_result("running")

    def fail(self, message: str) -> None:
        """Leave a result that says why the run stopped; everything finished so far stays in it."""
        self._write_result("failed", error=message)

    def _restore(self) -> None:
        """Bring method and metrics to where the saved state is."""
        state = self.state
        for name, counts in state.readouts.items():
            load_state(self.readouts[name], counts, self.writes)
        self._measure()
        if state.method is None:
            return
        restore_method(self.method, self.benchmark, state, self.config.seed)
        self.state.method = None

    def _grow(self, task: Task) -> None:
        grow(self.method, task, self.config.seed)

    def _run_task(self, task: Task) -> None:
        """Train all stages that are not done, then consolidate."""
        method, state = self.method, self.state
        if state.stages_done == 0:
            self._grow(task)
            method.to(self.device)
            if self.writes and isinstance(task, StreamTask) and task.index == 0:
                write_trace(method, self.benchmark, self.directory.path, 0)  # type: ignore[arg-type]
            torch.manual_seed(key(self.config.seed, task.index, "begin"))
            method.begin_task(task)
        method.to(self.device)
        count = len(method.stages(task))
        for number in range(state.stages_done, count):
            stage = method.stages(task)[number]  # asked anew: an earlier stage may have written what this one reads
            fit_stage(
                method,
                self.benchmark,
                task,
                stage,
                position=(number, count),
                seed=self.config.seed,
                trainer_config=self.config.trainer,
                folder=self.directory.state,
                metrics=self.metrics,
                progress=self.progress,
            )
            same_memory(method)
            state.stages_done = number + 1
            self._save()
            if self.writes:
                forget_checkpoints(self.directory.state, task, stage)
            stop_if_asked(f"after task {task.index + 1}, stage {stage.name}")
        method.to(self.device).eval()
        torch.manual_seed(key(self.config.seed, task.index, "end"))
        method.end_task(task)
        same_memory(method)
        if self.writes and isinstance(task, ClassTask) and isinstance(method, KeepsExemplarRecord):
            record = method.exemplar_record(task)
            if record is not None:
                names = self.benchmark.class_names[: task.seen]
                write_exemplar_record(record, names, task, self.directory.path)

    def _finish_task(self, task: Task) -> None:
        """Evaluate, print the task's line, and save what the next task begins with."""
        self._share_first_task(task)
        recorder = Recorder()
        self._evaluate(task, recorder)
        self._keep(recorder, task)
        state = self.state
        state.bytes.append({"task": task.index, **asdict(self.method.byte_report())})
        state.readouts = {name: synced_state(metrics) for name, metrics in self.readouts.items()}
        state.task, state.stages_done = task.index + 1, 0
        self._measure()
        accuracies = {name: _entry(values["accuracy_curve"], task.index) for name, values in self.values.items()}
        if self.metrics is not None:
            flat = {f"{name}/accuracy": value for name, value in accuracies.items() if value is not None}
            self.metrics.append(task.index, "evaluation", None, flat)
        self.progress.say(task_line(task, len(self.benchmark.task_sizes), accuracies, state.bytes[-1]))
        self._save()
        if self.writes and isinstance(task, DatasetTask):
            forget_stream(self.directory.path, task)
        self._write_result("running")

    def _keep(self, recorder: Recorder, task: Task) -> None:
        """Write what was answered; the digest of the file is part of the state that says the task is done."""
        predictions = recorder.predictions()
        if self.writes:
            file, count = file_of(self.directory.path, task.index), len(self.benchmark.task_sizes)
            left = count - 1 - task.index
            self.state.predictions[file.name] = write_predictions(file, predictions, left, count)

    def _evaluate(self, task: Task, recorder: Recorder) -> None:
        """Count and record the answers of every readout on what the task asks."""
        benchmark: Any = self.benchmark
        method: Any = self.method
        if isinstance(task, DatasetTask):
            trainer, seed, folder = self.config.trainer, self.config.seed, self.directory.path
            chosen = evaluate_stream(method, benchmark, task, self.readouts, trainer, seed, folder, recorder)
            self.state.oracles.append(chosen)
            if self.writes and isinstance(task, MemoryTask) and isinstance(method, LooksUp):
                self.method.to(self.device)
                write_retrieved(method, task, folder)
        elif isinstance(task, StreamTask):
            evaluate_online(method, benchmark, task, self.readouts, self.config.trainer, recorder)
            if self.writes:
                write_trace(method, benchmark, self.directory.path, task.index + 1)
        else:
            evaluate(self.method, benchmark, task, self.readouts, self.config.trainer, recorder)  # type: ignore[arg-type]

    def _share_first_task(self, task: Task) -> None:
        """Write ``first_task.pt``, with which other methods may begin."""
        weights = self.method.first_task_weights() if task.index == 0 else None
        if weights is not None and self.writes:
            content = {name: on_cpu(value) for name, value in weights.items()}
            write_whole(self.directory.path / "first_task.pt", tensors(content))

    def _save(self) -> None:
        """Save the state; only the first process writes."""
        if not self.writes:
            return
        self.state.wall_seconds = time.perf_counter() - self.began
        self.state.method = {name: on_cpu(value) for name, value in self.method.state_dict().items()}
        self.state_file.save(self.state)
        self.state.method = None

    def _measure(self) -> None:
        """Take the figures of all processes' counts together; all must call. Writing them needs no other process."""
        self.values: dict[str, dict[str, Any]] = {
            name: with_oracles(figures(counts), [chosen[name] for chosen in self.state.oracles if name in chosen])
            for name, counts in self.readouts.items()
        }
        self.confusions = {name: confusion_matrix(counts) for name, counts in self.readouts.items()}
        if issubclass(self.benchmark.task_type, DatasetTask):
            size = self.benchmark.task_sizes[max(self.state.task - 1, 0)]
            self.confusions = {name: counts[:size, :size] for name, counts in self.confusions.items()}

    def _write_result(self, status: str, error: str | None = None) -> None:
        """Write ``result.json`` and the confusion matrices of the latest task."""
        if not self.writes or self.metrics is None:
            return
        result: dict[str, Any] = result_of(
            status=status,
            error=error,
            identity=self.directory.identity,
            config=OmegaConf.to_container(self.config, resolve=True),  # type: ignore[arg-type]
            command=self.command,
            benchmark=self.benchmark,
            readouts=self.values,
            byte_reports=self.state.bytes,
            metrics=self.metrics,
            wall_seconds=time.perf_counter() - self.began,
        )
        self.directory.write_result(result)
        for name, counts in self.confusions.items() if self.state.task else ():
            self.directory.write_confusion(name, counts.tolist())


def metrics_of(method: Method[Any], benchmark: Benchmark) -> dict[str, MetricCollection]:
    """Return fresh metrics for everything that is answered, by the name that results give it."""
    if isinstance(benchmark, OnlineBenchmark):
        return online_metrics(method, benchmark)  # type: ignore[arg-type]
    sizes = benchmark.task_sizes
    confused = max(sizes) if issubclass(benchmark.task_type, DatasetTask) else None
    return {name: readout_metrics(sizes, confused=confused) for name in method.readouts}


def _entry(curve: Entries[float | None], index: int) -> float | None:
    """Return an entry of a curve, which ends early for samples that are not asked any more."""
    return curve[index] if index < len(curve) else None
