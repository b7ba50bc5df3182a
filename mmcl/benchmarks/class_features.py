"""Class-incremental tasks over precomputed features of any network: a file in place of images and backbone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch.nn.functional import layer_norm

from mmcl.backbones.final_norm import EPSILON, FINAL_NORMS, FRESH
from mmcl.benchmarks.base import DataItem
from mmcl.benchmarks.class_incremental import ClassIncrementalBenchmark, ClassIncrementalBenchmarkConfig, RawData
from mmcl.config.schema import setting
from mmcl.errors import UserError, nearest
from mmcl.features.own import ClassFeatures, read_class_features
from mmcl.protocol import ImageFeatures, Samples

FLOAT32_BYTES = 4


@dataclass
class ClassFeaturesConfig(ClassIncrementalBenchmarkConfig):
    """Keys of the benchmark over a file of features."""

    file: str | None = setting("An npz or safetensors file of features, given as paths.features=FILE.")
    final_norm: str = setting(
        "fresh: every feature is brought to mean 0 and variance 1, as SLCA's new last layer does; kept: as in the file."
    )

    def __post_init__(self) -> None:
        """Refuse another norm."""
        if self.final_norm not in FINAL_NORMS:
            known = " or ".join(FINAL_NORMS)
            raise UserError(
                f"benchmark.final_norm={self.final_norm}: expected {known}.{nearest(self.final_norm, FINAL_NORMS)}"
            )


class ClassFeaturesBenchmark(ClassIncrementalBenchmark):
    """Classes whose samples are features ``(N, D)``, the plain view of each image; nothing alters them.

    See :mod:`mmcl.features.own` for the file. Methods classify the features themselves, without a backbone.
    """

    Config: ClassVar[type[ClassFeaturesConfig]] = ClassFeaturesConfig
    config: ClassFeaturesConfig

    def __init__(self, config: ClassFeaturesConfig) -> None:
        super().__init__(config)
        self._content: ClassFeatures | None = None

    @property
    def file(self) -> Path:
        """The file of features."""
        if not self.config.file:
            raise UserError(
                f"benchmark={self.name} needs a file. Type paths.features=FILE, an npz or safetensors file, which "
                "mmcl features export writes"
            )
        return Path(self.config.file).expanduser()

    @property
    def dimension(self) -> int:
        """Length D of a feature."""
        return self._read().dimension

    @property
    def image_bytes(self) -> int:  # type: ignore[override]
        """Bytes of one feature in float32."""
        return FLOAT32_BYTES * self.dimension

    def describe_data(self) -> list[DataItem]:
        """Say whether the file is there."""
        path = Path(self.config.file or "FILE").expanduser()
        return [DataItem(path, "features: type paths.features=FILE", path.is_file())]

    def read(self) -> RawData:
        """Read the file.

        Raises:
            UserError: it is missing or damaged, or a key is wrong.
        """
        content = self._read()
        return RawData(self._plain(content.train), self._plain(content.test), list(content.class_names))

    def _plain(self, images: ImageFeatures) -> Samples:
        """Return the plain view of images as samples, float32 ``(N, D)``."""
        features = images.features[:, 0].float()
        if self.config.final_norm == FRESH:
            features = layer_norm(features, (self.dimension,), eps=EPSILON)
        return Samples(features, images.labels, images.sources)

    def _read(self) -> ClassFeatures:
        if self._content is None:
            self._content = read_class_features(self.file)
        return self._content
