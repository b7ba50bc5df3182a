"""What a run gives its method beside the method's own keys, by the kind of tasks that it goes through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmcl.backbones.dual_encoder import DualEncoder
from mmcl.backbones.feature_backbone import FeatureBackbone, Identity, PretrainedBackbone
from mmcl.backbones.split import SplitBackbone
from mmcl.benchmarks.base import Benchmark
from mmcl.benchmarks.class_incremental import ClassIncrementalBenchmark
from mmcl.benchmarks.clip_catalogue import CATALOGUE
from mmcl.benchmarks.dataset_benchmark import EncodingBenchmark
from mmcl.benchmarks.ns_imagenet import NsImageNet
from mmcl.benchmarks.online import OnlineBenchmark
from mmcl.config.components import build, locate
from mmcl.config.locate import options, shipped_folder
from mmcl.engine.encoding import CachedEncoders
from mmcl.engine.frozen_net import frozen_net
from mmcl.errors import UserError, nearest
from mmcl.memory.accounting import BlockParameters, counted_parameters
from mmcl.memory.herding import selector
from mmcl.memory.quota import MemoryConfig, Quota
from mmcl.methods.base import Ingredients, Method
from mmcl.methods.class_incremental import ClassIncremental, ClassIncrementalIngredients
from mmcl.methods.on_features import FeatureIngredients, OnFeatures
from mmcl.methods.online import OnlineIngredients, OnlineMethod
from mmcl.methods.pretrained import PretrainedIncremental, PretrainedIngredients


def ingredients_of(config: DictConfig, benchmark: Benchmark) -> Ingredients:
    """Gather the ingredients of the configured method for a benchmark that is set up.

    Raises:
        UserError: backbone or memory do not go with the method.
    """
    method_class = locate(config.method["_target_"])
    gather = next(function for base, function in _GATHER if issubclass(method_class, base))
    return gather(config, benchmark, method_class)


def _for_classes(
    config: DictConfig, benchmark: ClassIncrementalBenchmark, method_class: type[ClassIncremental]
) -> ClassIncrementalIngredients:
    if hasattr(benchmark, "dimension"):
        raise UserError(
            f"method={config.method.name} trains a network on images; benchmark={config.benchmark.name} has features. "
            "Type for example method=slca"
        )

    def make_backbone() -> SplitBackbone:
        backbone = build(config.backbone)
        if not isinstance(backbone, SplitBackbone):
            raise UserError(
                f"backbone={config.backbone.name} is not one that method={config.method.name} trains from the start. "
                "Type for example backbone=resnet32"
            )
        return backbone

    if "size" not in config.memory:
        raise UserError(
            f"method={config.method.name} needs the keys of memory=default, not memory={config.memory.name}"
        )
    task_count = len(benchmark.task_sizes)
    quota = _quota(config, method_class, make_backbone(), task_count, benchmark.image_bytes)
    if method_class.keeps_memory:
        quota.per_class(sum(benchmark.task_sizes))  # a budget too small stops here, not after hours in the last task
    return ClassIncrementalIngredients(
        seed=config.seed,
        task_count=task_count,
        make_backbone=make_backbone,
        quota=quota,
        select=selector(config.memory.select, config.seed),
        image_bytes=benchmark.image_bytes,
        task_sizes=tuple(benchmark.task_sizes),
        fewest_images=benchmark.fewest_images,
    )


def _for_pretrained(
    config: DictConfig, benchmark: ClassIncrementalBenchmark, method_class: type[PretrainedIncremental]
) -> PretrainedIngredients:
    dimension: int | None = getattr(benchmark, "dimension", None)  # of a benchmark whose samples are features already

    def make_backbone() -> FeatureBackbone:
        if dimension is not None:
            return Identity(dimension)
        backbone = build(config.backbone)
        if not isinstance(backbone, PretrainedBackbone):
            raise UserError(
                f"backbone={config.backbone.name} is not a pre-trained network without a head, which "
                f"method={config.method.name} needs. Type for example backbone=vit_tiny"
            )
        return backbone.load()

    return PretrainedIngredients(
        seed=config.seed,
        task_count=len(benchmark.task_sizes),
        make_backbone=make_backbone,
        image_bytes=benchmark.image_bytes,
    )


def _for_datasets(config: DictConfig, benchmark: Benchmark, method_class: type) -> FeatureIngredients:
    _check_named_datasets(config, benchmark)
    shared = {"seed": config.seed, "task_count": len(benchmark.task_sizes)}
    if not isinstance(benchmark, EncodingBenchmark):  # its features come from files
        files: Any = benchmark
        return FeatureIngredients(dimension=files.dimension, logit_scale=files.logit_scale, encoder=None, **shared)
    encoder = _load_encoder(config)
    benchmark.connect(CachedEncoders.configured(encoder, Path(config.paths.cache).expanduser(), config))
    return FeatureIngredients(dimension=encoder.dimension, logit_scale=encoder.logit_scale, encoder=encoder, **shared)


def _check_named_datasets(config: DictConfig, benchmark: Benchmark) -> None:
    """Refuse settings for a data set that neither the benchmark nor the catalogue knows."""
    known = {*CATALOGUE, *(benchmark.task_names or ())}
    for key in ("schedule_of", "epochs_of"):
        for name in map(str, config.method.get(key) or ()):
            if name not in known:
                raise UserError(f"method.{key}: unknown data set '{name}'.{nearest(name, known)}")


def _load_encoder(config: DictConfig) -> DualEncoder:
    backbone = build(config.backbone)
    if not hasattr(backbone, "load") or isinstance(backbone, PretrainedBackbone):
        raise UserError(
            f"backbone={config.backbone.name} has no text encoder. Type for example backbone=mini_clip or "
            "backbone=clip_vit_b16"
        )
    encoder: DualEncoder = backbone.load()
    return encoder


def _for_streams(config: DictConfig, benchmark: OnlineBenchmark, method_class: type) -> OnlineIngredients:
    if isinstance(benchmark, NsImageNet):
        benchmark.connect(frozen_net(config))
    return OnlineIngredients(
        seed=config.seed,
        task_count=len(benchmark.task_sizes),
        dimension=benchmark.dimension,
        classes=len(benchmark.class_names),
    )


# Looked through in this order for the first base class of a method.
_GATHER: list[tuple[type[Method[Any]], Callable[..., Ingredients]]] = [
    (ClassIncremental, _for_classes),
    (PretrainedIncremental, _for_pretrained),
    (OnFeatures, _for_datasets),
    (OnlineMethod, _for_streams),
]


def _quota(
    config: DictConfig,
    method_class: type[ClassIncremental],
    backbone: SplitBackbone,
    task_count: int,
    image_bytes: int,
) -> Quota:
    plain, trunk, branch = (
        sum(parameter.numel() for parameter in part.parameters())
        for part in (backbone, backbone.trunk, backbone.branch)
    )
    blocks = BlockParameters(plain, trunk, branch)
    memory: MemoryConfig = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(MemoryConfig), config.memory))  # type: ignore[assignment]
    own = counted_parameters(method_class.growth_of(config.method), blocks, task_count)
    if memory.align_to is None:
        return Quota(memory, image_bytes, own)
    return Quota(memory, image_bytes, own, counted_parameters(_growth_of(memory.align_to), blocks, task_count))


def _growth_of(name: str) -> str:
    known: dict[str, Any] = {}
    for method in options("method"):
        node = OmegaConf.load(shipped_folder("conf") / "method" / f"{method}.yaml")
        target = OmegaConf.select(node, "_target_")
        if target is not None and issubclass(locate(target), ClassIncremental):
            known[method] = locate(target).growth_of(node)
    if name not in known:
        raise UserError(f"memory.align_to={name}: no such method.{nearest(name, known)} Methods: {', '.join(known)}")
    growth: str = known[name]
    return growth
