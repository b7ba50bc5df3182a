"""Encoded features of one data set as a file of their own: the layout that ``benchmark=features`` reads."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig

from mmcl.benchmarks.base import Benchmark
from mmcl.benchmarks.dataset_benchmark import DatasetBenchmark, ImagesBehindEncoders
from mmcl.config.components import build
from mmcl.engine.ingredients import ingredients_of
from mmcl.engine.processes import is_first_process
from mmcl.errors import MissingFileError, UserError
from mmcl.features.own import OwnFeatures, write_own_features
from mmcl.methods.on_features import FeatureIngredients
from mmcl.protocol import ImageFeatures


def export_features(config: DictConfig, file: Path) -> Path:
    """Encode a data set, or take it from the cache, and write its features.

    Test and validation images get ``method.views`` views, training images the plain one and ``method.passes``
    augmentation passes (null: none). Templates and, where the data set has them, descriptions are written as texts.

    Args:
        config: a checked configuration of ``method=dmn`` on a benchmark of one data set.
        file: to write, ``.npz`` or ``.safetensors``.

    Raises:
        UserError: several data sets, data that is missing, or another ending.
    """
    benchmark: Benchmark = build(config.benchmark)
    if not isinstance(benchmark, DatasetBenchmark):
        raise UserError(f"benchmark={config.benchmark.name} has no images to encode. Type for example clip/dtd")
    benchmark.prepare_data()
    benchmark.setup()
    if len(benchmark.task_names) != 1:
        names = ", ".join(benchmark.task_names)
        raise UserError(f"benchmark={config.benchmark.name} has several data sets ({names}): export one at a time")
    ingredients = ingredients_of(config, benchmark)
    assert isinstance(ingredients, FeatureIngredients)
    dataset = benchmark.behind_encoders(0)
    views, passes = config.method.views, config.method.passes or 0
    texts, classes, sentences, kinds = _texts(dataset)
    content = OwnFeatures(
        class_names=benchmark.names_of(0),
        train=dataset.all_train(passes),
        validation=_validation(dataset, views),
        test=dataset.test(views),
        text_features=texts,
        text_classes=classes,
        text_sentences=sentences,
        text_kinds=kinds,
        logit_scale=ingredients.logit_scale,
    )
    if is_first_process():
        write_own_features(file.expanduser(), content)
    return file


def _validation(dataset: ImagesBehindEncoders, views: int) -> ImageFeatures | None:
    """Return the validation images; None where the data set has none, which the file says by leaving them out."""
    return dataset.validation(None, views) if len(dataset.dataset.validation) else None


def _texts(dataset: ImagesBehindEncoders) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...], tuple[str, ...]]:
    """Return features, classes, sentences and kinds of templates and descriptions, grouped by class."""
    parts = []
    for prompts, kind in (("tip", "template"), ("cupl", "description")):
        try:
            sentences = dataset.sentences(prompts).texts
        except MissingFileError:  # descriptions are the user's to bring, and the file can do without
            continue
        features, classes = dataset.texts(prompts)
        parts.append((features, classes, sentences, (kind,) * len(sentences)))
    features, classes = (torch.cat([part[at] for part in parts]) for at in (0, 1))  # type: ignore[misc]
    order = classes.argsort(stable=True)
    words, kinds = (tuple(word for part in parts for word in part[at]) for at in (2, 3))
    rows = order.tolist()
    return features[order], classes[order], tuple(words[row] for row in rows), tuple(kinds[row] for row in rows)
