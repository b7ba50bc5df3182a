"""Compose the configurations of many runs, such as those of all tables, in a fraction of the time of one by one.

Runs that choose the same options share the work of composing them; values are applied as Hydra applies them. Processes
share what is left.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mmcl.config.compose import compose_run, compose_unchecked
from mmcl.config.overrides import normalise
from mmcl.config.strict import checked
from mmcl.errors import UserError

Arguments = tuple[str, ...]
FEW = 40  # runs; below, a second process costs more time than it saves
VALUE = "++"  # how a value begins in canonical form; whatever begins otherwise is a choice


def compose_runs(runs: Sequence[Arguments], processes: int | None = None) -> list[DictConfig | UserError]:
    """Return what :func:`mmcl.config.compose.compose_run` gives for each run, or the error that it raises.

    Args:
        runs: arguments of each run; a value is one value, not a sweep.
        processes: how many share the work; by default one for each core, and this one alone for few runs.
    """
    processes = min(processes or os.cpu_count() or 1, 1 + len(runs) // FEW)
    if processes == 1:
        return _compose(runs)
    order = sorted(range(len(runs)), key=lambda index: runs[index])  # those that share choices lie together
    size = -(-len(runs) // processes)
    parts = [order[start : start + size] for start in range(0, len(runs), size)]
    with ProcessPoolExecutor(processes) as pool:
        composed = list(chain.from_iterable(pool.map(_compose, [[runs[index] for index in part] for part in parts])))
    found = dict(zip(chain.from_iterable(parts), composed, strict=True))
    return [found[index] for index in range(len(runs))]


def _compose(runs: Sequence[Arguments]) -> list[DictConfig | UserError]:
    bases: dict[Arguments, DictConfig] = {}
    composed: list[DictConfig | UserError] = []
    for arguments in runs:
        try:
            composed.append(_compose_on(bases, arguments))
        except UserError as error:
            composed.append(error)
    return composed


def _compose_on(bases: dict[Arguments, DictConfig], arguments: Arguments) -> DictConfig:
    """Compose a run on the configuration of its choices, which is made once."""
    words = normalise(list(arguments))
    choices = tuple(word for word in words if not word.startswith((VALUE, "-")))
    if choices not in bases:
        bases[choices] = compose_unchecked(list(choices))
    config = copy.deepcopy(bases[choices])
    try:
        values = OverridesParser.create().parse_overrides([word for word in words if word.startswith(VALUE)])
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
    except (HydraException, OmegaConfBaseException, ValueError):
        return compose_run(list(arguments))  # which says it in its own words
    return checked(config)
