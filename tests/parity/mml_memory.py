"""Golden checks of MML's memory: prototypes of consensus, the nearest rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl.memory.prototypes import ClassRows, best, consensus, prototypes, rows_by_class
from mmcl.memory.search import nearest_rows
from tests.parity import Golden, close, parity


def tensor(golden: Golden, name: str) -> Tensor:
    return torch.from_numpy(golden[name])


def rows(golden: Golden, name: str, feature: str = "items", label: str = "item_labels") -> ClassRows:
    return ClassRows(tensor(golden, f"{name}_{feature}"), tensor(golden, f"{name}_{label}"))


@parity("memory")
def check_memory(golden: Golden) -> None:
    classes, top = int(golden["num_classes"]), int(golden["top_m"])
    for split in ("trn", "val"):
        images, texts = rows(golden, f"{split}.img"), rows(golden, f"{split}.txt")
        for name, items in (("img", images), ("txt", texts)):
            close(items.features, golden[f"{split}.{name}_embed"], 0)
            close(items.classes, golden[f"{split}.{name}_label"], 0)
        shots = rows(golden, f"{split}.shot") if int(golden["use_fewshot"]) else None
        ours = prototypes(*images, *texts, classes, top, shots)
        arbitrary = []
        image_parts = rows_by_class(images if shots is None else shots, classes)
        for number, (of_images, of_texts) in enumerate(zip(image_parts, rows_by_class(texts, classes), strict=True)):
            worth = consensus(of_images, of_texts)
            if not len(of_images):
                arbitrary.append(number)
                check_class_without_images(golden, split, number, of_texts, worth.texts)
                close(ours.texts[number], normalize(of_texts[:top].mean(0), dim=0))
                close(ours.images[number], ours.texts[number], 0)
                continue
            check_choice(golden, f"{split}.txt", number, worth.texts, top)
            if shots is None:
                check_choice(golden, f"{split}.img", number, worth.images, top)
        comparable = [number for number in range(classes) if number not in arbitrary]
        close(ours.images[comparable], golden[f"{split}.img_proto"][comparable])
        close(ours.texts[comparable], golden[f"{split}.txt_proto"][comparable])


def check_choice(golden: Golden, name: str, number: int, worth: Tensor, top: int) -> None:
    kept = best(worth, top)
    close(kept, golden[f"{name}_sel_{number}"], 0)
    close(worth[kept], golden[f"{name}_score_{number}"])


def check_class_without_images(golden: Golden, split: str, number: int, texts: Tensor, worth: Tensor) -> None:
    """All texts are worth nothing; which of them were kept is an accident of the recorded run."""
    close(worth, np.zeros(len(texts)), 0)
    close(golden[f"{split}.txt_score_{number}"], np.zeros(len(golden[f"{split}.txt_sel_{number}"])), 0)
    kept = texts[tensor(golden, f"{split}.txt_sel_{number}")]
    for side in ("img_proto", "txt_proto"):
        close(normalize(kept.mean(0), dim=0), golden[f"{split}.{side}"][number])


@parity("knn")
def check_knn(golden: Golden) -> None:
    memory = tensor(golden, "mem")
    found = nearest_rows(tensor(golden, "x"), memory, int(golden["k"]))
    close(found.rows, golden["idx"], 0)
    close(found.scores, golden["score"])
    close(memory[found.rows], golden["knn_embed"], 0)
