"""Slots of this machine: each GPU that is free or, without GPUs, a share of the processor's cores."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mmcl.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
THREADS = "OMP_NUM_THREADS"
# "GPU 0: NVIDIA H100 (UUID: GPU-5c...)" and, indented below it, "MIG 1g.10gb Device 0: (UUID: MIG-0f...)".
GPU_LINE = re.compile(r"^GPU (\d+): (.*?) \(UUID: (GPU-[^)]+)\)")
MIG_LINE = re.compile(r"^\s+MIG .*\(UUID: (MIG-[^)]+)\)")


@dataclass(frozen=True)
class Slot:
    """Room for one run at a time.

    Attributes:
        name: for people, such as ``gpu 0``.
        environment: variables with which a run keeps to the slot.
    """

    name: str
    environment: Mapping[str, str]


@dataclass(frozen=True)
class _Gpu:
    """A GPU as ``nvidia-smi -L`` lists it, and the identifiers of its MIG parts, if it is cut into parts."""

    index: str
    uuid: str
    parts: tuple[str, ...]


def find_slots(count: int | None = None, accelerator: str = "auto") -> list[Slot]:
    """Return the free slots of this machine: one for each free GPU or, where none is free, slots of the CPU.

    A GPU is free when no process computes on it, and it is among ``CUDA_VISIBLE_DEVICES`` where that is set; what
    stands there is handed on as it is. A slot of the CPU has ``OMP_NUM_THREADS`` threads (one where that is not set),
    and there are as many as fit the cores that this process may use.

    Args:
        count: at most so many GPUs, or exactly so many slots of the CPU, which share its cores then; None is all.
        accelerator: ``gpu`` or ``cpu`` where the runs insist on one.

    Raises:
        UserError: the runs insist on a GPU and none is free; or ``count`` is no number of slots.
    """
    if count is not None and count < 1:
        raise UserError(f"{count} slots: expected at least 1, or null for all")
    allowed = [] if accelerator == "cpu" else list(_allowed(_gpus()))
    busy = _busy() if allowed else set()
    free = [device for device, uuid in allowed if uuid not in busy]
    if free:
        return [Slot(f"gpu {device}", {VISIBLE: device}) for device in free[:count]]
    if accelerator == "gpu":
        hidden = f" ({VISIBLE}={os.environ[VISIBLE]})" if VISIBLE in os.environ else ""
        what = "another process computes on every GPU" if allowed else "there is no GPU"
        raise UserError(f"{what} here{hidden}. Wait for one, or type: trainer=cpu")
    return _cpu_slots(count)


def _allowed(gpus: Sequence[_Gpu]) -> Iterator[tuple[str, str]]:
    """Yield the name of each device that may be used, and its full identifier."""
    if VISIBLE not in os.environ:
        for gpu in gpus:
            yield from ((device, device) for device in gpu.parts or (gpu.uuid,))
        return
    by_name = {name: gpu for gpu in gpus for name in (gpu.index, gpu.uuid, *gpu.parts)}
    for name in (word.strip() for word in os.environ[VISIBLE].split(",")):
        # CUDA takes the beginning of an identifier for the whole of it, and stops at the first unknown one.
        known = [full for full in by_name if full == name or (name[:4] in ("GPU-", "MIG-") and full.startswith(name))]
        if not known:
            return
        gpu = by_name[known[0]]
        yield name, known[0] if known[0] in gpu.parts else gpu.uuid


def _gpus() -> list[_Gpu]:
    """Return the GPUs of this machine; none without NVIDIA's driver."""
    found: list[_Gpu] = []
    for line in _nvidia_smi("-L"):
        gpu, part = GPU_LINE.match(line), MIG_LINE.match(line)
        if gpu:
            found.append(_Gpu(gpu[1], gpu[3], ()))
        elif part and found:
            found[-1] = _Gpu(found[-1].index, found[-1].uuid, (*found[-1].parts, part[1]))
    return found


def _busy() -> set[str]:
    """Return the identifiers of devices on which processes compute."""
    return {line.strip() for line in _nvidia_smi("--query-compute-apps=gpu_uuid", "--format=csv,noheader")}


def _nvidia_smi(*arguments: str) -> list[str]:
    try:
        asked = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return asked.stdout.splitlines()


def _cpu_slots(count: int | None) -> list[Slot]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get(THREADS, "")
    by_default = 1 if count is None else max(1, cores // count)
    threads = int(given) if given.isdigit() and int(given) else by_default
    slots = count or max(1, cores // threads)
    # A GPU that is there all the same is none of these runs' business.
    return [Slot(f"cpu {number}", {THREADS: str(threads), VISIBLE: ""}) for number in range(slots)]
