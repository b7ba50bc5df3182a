"""Made-up trees of class folders, and benchmarks over them with the keys of their files in ``conf/benchmark``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mmcl.benchmarks.memory_sets import ClassSet
from mmcl.config.components import locate
from mmcl.images import FileImages
from mmcl.protocol import Samples

CONF = Path(__file__).parents[2] / "conf" / "benchmark"


def configured(name: str, data: Path, **keys: Any) -> Any:
    """Return the benchmark of a file with other keys."""
    node: Any = OmegaConf.load(CONF / f"{name}.yaml").benchmark
    node.update({"data": str(data), "split_seed": 0, **keys})
    benchmark = locate(node["_target_"])
    return benchmark(OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(benchmark.Config), node)))


def write_images(folder: Path, classes: Iterable[str], count: int, ending: str = "jpg") -> None:
    """Write empty image files: listing reads none."""
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder / name / f"{name}_{number:03d}.{ending}").touch()


def write_text(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def write_articles(folder: Path, classes: Iterable[str]) -> None:
    """Write labels.txt and an article of two sentences about each class."""
    lines = []
    for number, name in enumerate(classes):
        lines.append(f"{name} {number} the_{name}\n")
        write_text(folder / "wiki" / f"desc_{number}.txt", f"{name} is one. It has {number} legs.\n")
    write_text(folder / "labels.txt", "".join(lines))


def paths(samples: Samples) -> tuple[str, ...]:
    assert isinstance(samples.images, FileImages)
    return samples.images.paths


def parts(known: ClassSet) -> list[Samples]:
    return [known.training, known.queries, known.images, known.shots]


def check_labels(known: ClassSet, class_ids: list[str]) -> None:
    """Every image is of the class that its folder says, and lies in one part alone."""
    listed = [path for part in parts(known) for path in paths(part)]
    assert len(set(listed)) == len(listed)
    for part in parts(known):
        assert [Path(path).parent.name for path in paths(part)] == [class_ids[label] for label in part.labels.tolist()]


def sentences_of(known: ClassSet, label: int) -> list[str]:
    texts, classes = known.sentences
    return [text for text, own in zip(texts, classes.tolist(), strict=True) if own == label]
