"""Three small collections of real images with texts about their classes, and which of their classes are kin.

The data folder holds ``cifar-100-python``; ``tinyimagenet100`` with ``train/<wnid>/*.JPEG``, ``val/<wnid>/*.JPEG`` and
``classes.txt``; ``CUB_200_2011`` with the captions of Reed et al. (CVPR 2016) in ``text``; ``class_text`` with the
sentences of CuPL (Pratt et al., ICCV 2023) and the descriptors of Menon and Vondrick (ICLR 2023).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from mmcl.backbones.mini_clip import split_words
from mmcl.benchmarks.array_pickles import read_pickle
from mmcl.errors import UserError

TEMPLATES = ("a photo of a {}.", "a small photo of a {}.", "a blurry photo of the {}.", "a picture of one {}.", "{}.")
HELD_OUT_BIRDS = 3
# Names that CuPL and the descriptors have for classes whose own names they do not know.
OTHER_NAMES = {
    "n01641577": "American bullfrog",
    "n01774384": "southern black widow",
    "n02124075": "Egyptian Mau",
    "n02236044": "praying mantis",
    "n02788148": "baluster / handrail",
    "n02892201": "brass memorial plaque",
    "n03424325": "gas mask or respirator",
    "n03804744": "metal nail",
    "n03902125": "payphone",
    "n04311004": "through arch bridge",
    "n04371430": "swim trunks / shorts",
    "n07711569": "mashed potatoes",
    "n07875152": "pot pie",
    "n09193705": "mountain",
    "n09428293": "beach",
}
# Classes of CIFAR-100 and CUB, and those of Tiny-ImageNet that are the same thing; or one is a kind of the other.
KIN = (
    ("aquarium fish", "n01443537"),
    ("bee", "n02206856"),
    ("beetle", "n02165456"),
    ("bottle", "n03937543"),
    ("bridge", "n04311004"),
    ("bridge", "n04532670"),
    ("bus", "n04487081"),
    ("butterfly", "n02279972"),
    ("chair", "n04099969"),
    ("crocodile", "n01698640"),
    ("keyboard", "n03085013"),
    ("lawn mower", "n03649909"),
    ("lion", "n02129165"),
    ("lobster", "n01983481"),
    ("mountain", "n09193705"),
    ("orange", "n07747607"),
    ("sea", "n09428293"),
    ("spider", "n01774384"),
    ("streetcar", "n04487081"),
    ("sweet pepper", "n07720875"),
    ("table", "n03201208"),
    ("telephone", "n03902125"),
    ("tractor", "n04465501"),
    ("Black footed Albatross", "n02058221"),
    ("Laysan Albatross", "n02058221"),
    ("Sooty Albatross", "n02058221"),
)


class Images(NamedTuple):
    """Pixels uint8 ``(N, 3, S, S)`` and classes int64 ``(N,)``."""

    pixels: Tensor
    labels: Tensor


class Collected(NamedTuple):
    """A collection of C classes: ``ids`` tell them apart, ``names`` are what sentences call them.

    ``sentences`` describe each class; ``captions`` are about its training images and serve training alone.
    """

    name: str
    ids: list[str]
    names: list[str]
    sentences: list[list[str]]
    captions: list[list[str]]
    train: Images
    test: Images


def read_all(data: Path, size: int) -> list[Collected]:
    """Read CIFAR-100, Tiny-ImageNet-100 and CUB; each image is kept as ``size`` x ``size`` pixels.

    Raises:
        UserError: a folder is missing.
    """
    for name in ("cifar-100-python", "tinyimagenet100", "CUB_200_2011", "class_text"):
        if not (data / name).is_dir():
            raise UserError(f"--data {data}: has no folder {name}. {Path(__file__).name} says what it holds")
    return [read_cifar(data, size), read_tiny_imagenet(data, size), read_birds(data, size)]


def read_cifar(data: Path, size: int) -> Collected:
    """Read CIFAR-100, resized."""
    folder, advice = data / "cifar-100-python", "Unpack cifar-100-python.tar.gz again."
    names = [name.replace("_", " ") for name in read_pickle(folder / "meta", advice)["fine_label_names"]]
    known = read_texts(data, "cupl_full/cifar100_prompts_full.json")
    parts = []
    for split in ("train", "test"):
        content = read_pickle(folder / split, advice)
        pixels = torch.from_numpy(np.asarray(content["data"])).view(-1, 3, 32, 32)
        parts.append(Images(square(pixels, size), torch.tensor(content["fine_labels"])))
    sentences = [in_templates(name) + known[name] for name in names]
    return Collected("CIFAR-100", names, names, sentences, [[] for _ in names], *parts)


def read_tiny_imagenet(data: Path, size: int) -> Collected:
    """Read Tiny-ImageNet-100; its test images are those of ``val``."""
    folder = data / "tinyimagenet100"
    known = read_texts(data, "cupl_base/imagenet_prompts_base.json")
    descriptors = read_texts(data, "descriptors/descriptors_imagenet.json")
    lines = sorted(line.split("\t", 1) for line in (folder / "classes.txt").read_text().splitlines())
    wnids = [wnid for wnid, _ in lines]
    names = [imagenet_name(wnid, synonyms.split(", "), known) for wnid, synonyms in lines]
    parts = [read_folders([folder / split / wnid for wnid in wnids], size) for split in ("train", "val")]
    sentences = [in_templates(name) + known[name] + with_descriptors(name, descriptors[name]) for name in names]
    return Collected("Tiny-ImageNet-100", wnids, names, sentences, [[] for _ in names], *parts)


def read_birds(data: Path, size: int) -> Collected:
    """Read the classes of CUB that are there, resized at the short side and cut to the middle."""
    folder = data / "CUB_200_2011"
    paths, labels, is_train, classes = (
        dict(line.split() for line in (folder / f"{name}.txt").read_text().splitlines())
        for name in ("images", "image_class_labels", "train_test_split", "classes")
    )
    names = [classes[number].split(".", 1)[1].replace("_", " ") for number in sorted(classes, key=int)]
    texts = read_texts(data, "descriptors/descriptors_cub.json")
    descriptors = {tuple(split_words(name)): lines for name, lines in texts.items()}
    sentences = [
        in_templates(f"{name}, a bird") + with_descriptors(name, descriptors[tuple(split_words(name))])
        for name in names
    ]
    captions: list[list[str]] = [[] for _ in names]
    for image, path in paths.items():
        if is_train[image] == "1":
            text = (folder / "text" / path).with_suffix(".txt").read_text(errors="replace")
            captions[int(labels[image]) - 1] += [line for line in text.splitlines() if line.strip()]
    parts = []
    for wanted in ("1", "0"):
        chosen = [image for image in paths if is_train[image] == wanted]
        pixels = torch.stack([read_image(folder / "images" / paths[image], size) for image in chosen])
        parts.append(Images(pixels, torch.tensor([int(labels[image]) - 1 for image in chosen])))
    return Collected("CUB-10", names, names, sentences, captions, *parts)


def read_texts(data: Path, path: str) -> dict[str, list[str]]:
    """Read texts by the name of their class in lower case."""
    texts = json.loads((data / "class_text" / path).read_text(encoding="utf-8"))
    return {name.lower(): lines for name, lines in texts.items()}


def imagenet_name(wnid: str, synonyms: Sequence[str], known: Collection[str]) -> str:
    """Return what the known texts call a class, in lower case."""
    candidates = [name.lower() for name in (OTHER_NAMES.get(wnid, synonyms[0]), *synonyms)]
    found = next((name for name in candidates if name in known), None)
    if found is None:
        raise UserError(f"class_text has no sentences for {wnid}, {', '.join(synonyms)}: add its name to OTHER_NAMES")
    return found


def read_folders(folders: Sequence[Path], size: int) -> Images:
    """Read the images of one folder per class."""
    paths = [(path, label) for label, folder in enumerate(folders) for path in sorted(folder.iterdir())]
    pixels = torch.stack([read_image(path, size) for path, _ in paths])
    return Images(pixels, torch.tensor([label for _, label in paths]))


def read_image(path: Path, size: int) -> Tensor:
    """Read an image as uint8 ``(3, size, size)``."""
    with Image.open(path) as image:
        return square(torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1), size)


def square(pixels: Tensor, size: int) -> Tensor:
    """Resize uint8 images ``(..., 3, H, W)`` at the short side and cut them to the middle."""
    return center_crop(resize(pixels, [size], InterpolationMode.BICUBIC, antialias=True), [size, size])


def in_templates(name: str) -> list[str]:
    """Return CLIP's plain sentences about a class."""
    return [template.format(name) for template in TEMPLATES]


def with_descriptors(name: str, descriptors: Iterable[str]) -> list[str]:
    """Return a sentence for each descriptor, such as "small eyes"."""
    return [f"a photo of a {name}, which has {descriptor}." for descriptor in descriptors]


def with_kin(classes: Collection[str], kin: Iterable[tuple[str, str]]) -> set[str]:
    """Return classes with all to which a chain of kin leads from them."""
    found, before = set(classes), 0
    pairs = list(kin)
    while len(found) > before:
        before = len(found)
        for pair in pairs:
            if found & set(pair):
                found |= set(pair)
    return found


def held_out_classes(collections: Sequence[Collected]) -> set[str]:
    """Return the ids of the classes on which nothing is trained."""
    cifar, tiny, birds = (collected.ids for collected in collections)
    return with_kin([*sorted(cifar)[::4], *sorted(tiny)[::4], *birds[-HELD_OUT_BIRDS:]], KIN)


def kin_matrix(ids: Sequence[str]) -> Tensor:
    """Return which classes' sentences are true of which classes' images, bool ``(C, C)``: its own and those of kin."""
    same = torch.eye(len(ids), dtype=torch.bool)
    place = {class_id: number for number, class_id in enumerate(ids)}
    for one, other in KIN:
        same[place[one], place[other]] = same[place[other], place[one]] = True
    return same
