"""Names of the shipped methods by the kind of tasks that they go through, and their configuration nodes."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from mmcl.config.components import locate
from mmcl.config.locate import options, shipped_folder
from mmcl.methods.base import Method
from mmcl.methods.class_incremental import ClassIncremental
from mmcl.methods.pretrained import PretrainedIncremental
from mmcl.protocol import Task


def method_node(name: str) -> DictConfig:
    """Return the keys that a method's file gives, whatever package the file names."""
    node = OmegaConf.load(shipped_folder("conf") / "method" / f"{name}.yaml")
    assert isinstance(node, DictConfig)
    node.pop("defaults", None)  # other groups that the file chooses
    return node.method if "method" in node else node


def methods_for(task_type: type[Task]) -> list[str]:
    """List the methods for a kind of tasks."""
    return [name for name in options("method") if locate(method_node(name)["_target_"]).task_type is task_type]


def methods_from(base: type[Method]) -> list[str]:
    """List the methods that derive from a class, in whatever they go through."""
    return [name for name in options("method") if issubclass(locate(method_node(name)["_target_"]), base)]


CLASS_INCREMENTAL = methods_from(ClassIncremental)
PRETRAINED = methods_from(PretrainedIncremental)
