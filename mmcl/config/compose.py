"""Compose the configuration of a run from ``conf/`` and overrides, without running anything."""

from __future__ import annotations

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
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
    """Return the checked configuration of every job that a basic sweep over these arguments would run."""
    overrides = [a for a in normalise(arguments) if not a.startswith("-")]
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    except (HydraException, ValueError) as error:
        raise _as_user_error(error) from error
    return [_job(list(job), len(jobs)) for job in jobs]


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
        return _unknown(group, name)
    if isinstance(error, OverrideParseException):
        return UserError(f"cannot read {error.override.lstrip('+')}: {error}")
    cause = error.__cause__ if isinstance(error, ConfigCompositionException) and error.__cause__ else error
    return UserError(f"{error}" if cause is error else f"{error}\n{cause}")


def _require_options(overrides: list[str]) -> None:
    for group, _, name in (override.partition("=") for override in overrides):
        if group in OPTIONAL_GROUPS and name not in options(group):
            raise _unknown(group, name)


def _unknown(group: str, name: str) -> UserError:
    known = options(group)
    return UserError(f"unknown {group} '{name}'.{nearest(name, known)}\n{group}: {', '.join(known)}")
