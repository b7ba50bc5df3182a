"""A small file of features on which every method beside frozen encoders can run in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CLASSES, DIMENSION, VIEWS, TEST = 6, 12, 4, 340


def write_features(path: Path, seed: int = 0) -> Path:
    """Write classes as noisy directions; the texts point near them, so that a memory of images helps."""
    random = np.random.RandomState(seed)
    centres = random.randn(CLASSES, DIMENSION)
    texts = centres + 1.2 * random.randn(CLASSES, DIMENSION)

    def images(labels: np.ndarray, views: int) -> np.ndarray:
        plain = centres[labels] + 0.8 * random.randn(len(labels), DIMENSION)
        return (plain[:, None] + 0.3 * random.randn(len(labels), views, DIMENSION)).astype(np.float32)

    label_train, label_validation = np.arange(8 * CLASSES) % CLASSES, np.arange(4 * CLASSES) % CLASSES
    label_test = random.randint(0, CLASSES, TEST)
    np.savez(
        path,
        class_names=np.array([f"class {label}" for label in range(CLASSES)]),
        image_train=images(label_train, 3),
        label_train=label_train,
        image_validation=images(label_validation, VIEWS),
        label_validation=label_validation,
        image_test=images(label_test, VIEWS),
        label_test=label_test,
        text_feat=texts.astype(np.float32),
        text_class=np.arange(CLASSES),
        text_kind=np.array(["template"] * CLASSES),
    )
    return path
