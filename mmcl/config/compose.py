"""Compose the configuration of a run from ``conf/`` and overrides, without running anything."""

from __future__ import annotations

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig

from mmcl.config.locate import options, shipped_folder
from mmcl.config.overrides import normalise
from mmcl.config.strict import checked
from mmcl.errors import UserError, nearest

# The choice before a method is chosen: recipes depend on its name, and in a sweep Hydra first composes without it.
ConfigStore.instance().store(group="method", name="none", node={})

# Not every method and benchmark has one of these, and so Hydra passes over a name that nothing has.
OPTIONAL_GROUPS = ("preset", "recipe")

# Which extra brings Hydra's launchers and sweepers, by a word in their names.
EXTRAS = {"submitit": "slurm", "sampler": "optuna", "optuna": "optuna"}


def compose_run(arguments: list[str]) -> DictConfig:
    """Return the checked configuration that ``python -m mmcl.run`` with these arguments would run.

    Raises:
        UserError: an unknown option, key or type; the message names the nearest valid one.
    """
    return checked(compose_unchecked(arguments))


def compose_unchecked(arguments: list[str]) -> DictConfig:
    """Return the configuration of these arguments as ``conf/`` gives it, whatever is unknown or missing in it.

    Raises:
        UserError: an unknown option of a group.
    """
    overrides = [argument for argument in normalise(arguments) if not argument.startswith("-")]
    _require_options(overrides)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(shipped_folder("conf")), version_base="1.3", job_name="mmcl"):
        try:
            return hydra_compose("config", overrides=overrides)
        except (HydraException, ValueError) as error:
            raise _as_user_error(error) from error


def compose_sweep(arguments: list[str]) -> list[DictConfig]:
    """Return the checked configuration of every job that a sweep over these arguments would run.

    Of another sweeper than Hydra's own, which chooses values as it goes, they are the first value of every key, and
    each other value of a key beside the first ones of the others; of an interval, its ends.
    """
    overrides = [a for a in normalise(arguments) if not a.startswith("-")]
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        if any(override.key_or_group == "hydra/sweeper" for override in parsed):
            jobs = _samples(parsed)
        else:
            jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    except (HydraException, ValueError) as error:
        raise _as_user_error(error) from error
    return [_job(list(job), len(jobs)) for job in jobs]


def _samples(overrides: list[Override]) -> list[list[str]]:
    """Return overrides of jobs in which every value occurs, though not every combination."""
    values = {override.get_key_element(): _values(override) for override in overrides}
    first = {key: each[0] for key, each in values.items()}
    jobs = [first] + [{**first, key: value} for key, each in values.items() for value in each[1:]]
    return [[f"{key}={value}" for key, value in job.items()] for job in jobs]


def _values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    interval = override.value()
    return [str(interval.start), str(interval.end)]  # type: ignore[union-attr]


def _job(overrides: list[str], count: int) -> DictConfig:
    """Compose one of several jobs; an error names it."""
    try:
        return compose_run(overrides)
    except UserError as error:
        if count == 1:
            raise
        raise UserError(f"job {' '.join(overrides)}: {error}") from error


def _as_user_error(error: Exception) -> UserError:
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).partition("/")
        return _unknown_plugin(name) if group == "hydra" else _unknown(group, name)
    if isinstance(error, OverrideParseException):
        return UserError(f"cannot read {error.override.lstrip('+')}: {error}")
    cause = error.__cause__ if isinstance(error, ConfigCompositionException) and error.__cause__ else error
    return UserError(f"{error}" if cause is error else f"{error}\n{cause}")


def _require_options(overrides: list[str]) -> None:
    for group, _, name in (override.partition("=") for override in overrides):
        if group in OPTIONAL_GROUPS and name not in options(group):
            raise _unknown(group, name)


def _unknown_plugin(name: str) -> UserError:
    """Say what to install for a launcher or sweeper of Hydra that is not here."""
    extra = next((extra for word, extra in EXTRAS.items() if word in name), None)
    if extra is None:
        return UserError(f"unknown hydra/{name}. Type for example: hydra/launcher=gpu_pool")
    return UserError(f"hydra/{name} is not installed. Type: pip install 'mmcl[{extra}]'")


def _unknown(group: str, name: str) -> UserError:
    known = options(group)
    return UserError(f"unknown {group} '{name}'.{nearest(name, known)}\n{group}: {', '.join(known)}")
