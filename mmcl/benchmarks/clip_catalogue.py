"""The data sets on which CLIP is adapted: where each lies, its lists, templates, prompt file, and where to get it."""

from __future__ import annotations

from dataclasses import dataclass

from mmcl.benchmarks.clip_lists import (
    COOP,
    AircraftLists,
    CubLists,
    ImageNetFolders,
    Lists,
    NumberFolders,
    SplitFile,
    WnidFolders,
)

CUPL = "Get it from https://github.com/YBZh/DMN"
CUPL_IMAGENET = "Get imagenet_prompts/CuPL_image_prompts.json from https://github.com/sarahpratt/CuPL"
CUPL_UNPUBLISHED = "No published file has this name: write a list of sentences for each class name"
# The seven that Tip-Adapter chose from CLIP's list, in the order of its code.
SEVEN = (
    "a bad photo of the {}.",
    "a {} in a video game.",
    "a origami {}.",
    "a photo of the small {}.",
    "art of the {}.",
    "a photo of the large {}.",
    "itap of a {}.",
)


@dataclass(frozen=True)
class ClipDataset:
    """A data set as it is published.

    Attributes:
        name: in results and in ``benchmark.datasets``.
        folders: folders of images below the data root, tried in this order: DMN's, CoOp's and torchvision's.
        lists: how it says which images it has.
        classes: number of classes.
        images: number of training, validation and test images; None where it depends on what the user has.
        templates: of the ``tip`` prompts.
        prompt_file: of the ``cupl`` prompts, without ``.gz``.
        prompt_advice: how users get the prompt file.
        source: where users get the images.
        alteration: what views of a test image are: ``crop`` or ``augmix``.
        torchvision: class of ``torchvision.datasets`` that fetches the images; empty where none can.
        fetched: the one of ``folders`` that this class fills.
    """

    name: str
    folders: tuple[str, ...]
    lists: Lists
    classes: int
    images: tuple[int | None, int | None, int]
    templates: tuple[str, ...]
    prompt_file: str
    source: str
    prompt_advice: str = CUPL
    alteration: str = "augmix"
    torchvision: str = ""
    fetched: str = ""


def _imagenet(name: str, folders: tuple[str, ...], lists: Lists, classes: int, test: int, source: str) -> ClipDataset:
    """Return ImageNet or a shift of it: the same templates, prompt file and views."""
    return ClipDataset(
        name=name,
        folders=folders,
        lists=lists,
        classes=classes,
        images=(None, None, test),
        templates=SEVEN,
        prompt_file="CuPL_prompts_imagenet.json",
        prompt_advice=CUPL_IMAGENET,
        source=source,
        alteration="crop",
    )


IMAGENET = _imagenet(
    "imagenet",
    ("ImageNet", "imagenet/images", "imagenet"),
    ImageNetFolders(),
    1000,
    50_000,
    "https://www.image-net.org",
)
FLOWERS102 = ClipDataset(
    name="flowers102",
    folders=("oxford_flowers/jpg", "flowers-102/jpg"),
    lists=SplitFile("split_zhou_OxfordFlowers.json"),
    classes=102,
    images=(4093, 1633, 2463),
    templates=("a photo of a {}, a type of flower.",),
    prompt_file="CuPL_prompts_flowers102.json",
    source="https://www.robots.ox.ac.uk/~vgg/data/flowers/102",
    torchvision="Flowers102",
    fetched="flowers-102/jpg",
)
DTD = ClipDataset(
    name="dtd",
    folders=("dtd/images", "dtd/dtd/images"),
    lists=SplitFile("split_zhou_DescribableTextures.json"),
    classes=47,
    images=(2820, 1128, 1692),
    templates=("{} texture.",),
    prompt_file="CuPL_prompts_dtd.json",
    source="https://www.robots.ox.ac.uk/~vgg/data/dtd",
    torchvision="DTD",
    fetched="dtd/dtd/images",
)
OXFORD_PETS = ClipDataset(
    name="oxford_pets",
    folders=("oxford_pets/images", "oxford-iiit-pet/images"),
    lists=SplitFile("split_zhou_OxfordPets.json"),
    classes=37,
    images=(2944, 736, 3669),
    templates=("a photo of a {}, a type of pet.",),
    prompt_file="CuPL_prompts_oxfordpets.json",
    source="https://www.robots.ox.ac.uk/~vgg/data/pets",
    torchvision="OxfordIIITPet",
    fetched="oxford-iiit-pet/images",
)
STANFORD_CARS = ClipDataset(
    name="stanford_cars",
    folders=("stanford_cars",),
    lists=SplitFile("split_zhou_StanfordCars.json"),
    classes=196,
    images=(6509, 1635, 8041),
    templates=("a photo of a {}, a type of car.",),
    prompt_file="CuPL_prompts_stanfordcars.json",
    source=f"{COOP}, as the original page is gone: the folders cars_train and cars_test",
)
UCF101 = ClipDataset(
    name="ucf101",
    folders=("ucf101/UCF-101-midframes", "UCF-101-midframes"),
    lists=SplitFile("split_zhou_UCF101.json"),
    classes=101,
    images=(7639, 1898, 3783),
    templates=("a photo of a person doing {}.",),
    prompt_file="CuPL_prompts_ucf101.json",
    source=f"{COOP}: the middle frames, UCF-101-midframes.zip",
)
CALTECH101 = ClipDataset(
    name="caltech101",
    folders=(
        "caltech-101/caltech-101/101_ObjectCategories",
        "caltech-101/101_ObjectCategories",
        "caltech101/101_ObjectCategories",
    ),
    lists=SplitFile("split_zhou_Caltech101.json"),
    classes=100,
    images=(4128, 1649, 2465),
    templates=SEVEN,
    prompt_file="CuPL_prompts_caltech101.json",
    source="https://data.caltech.edu/records/mzrjq-6wc02",
    torchvision="Caltech101",
    fetched="caltech101/101_ObjectCategories",
)
FOOD101 = ClipDataset(
    name="food101",
    folders=("food-101/images",),
    lists=SplitFile("split_zhou_Food101.json"),
    classes=101,
    images=(50_500, 20_200, 30_300),
    templates=("a photo of {}, a type of food.",),
    prompt_file="CuPL_prompts_food101.json",
    source="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101",
    torchvision="Food101",
    fetched="food-101/images",
)
SUN397 = ClipDataset(
    name="sun397",
    folders=("sun397/SUN397", "SUN397"),
    lists=SplitFile("split_zhou_SUN397.json", test_list="Testing_01.txt"),
    classes=397,
    images=(15_880, 3970, 19_850),
    templates=SEVEN,
    prompt_file="CuPL_prompts_sun397.json",
    source="https://vision.princeton.edu/projects/2010/SUN",
    torchvision="SUN397",
    fetched="SUN397",
)
FGVC_AIRCRAFT = ClipDataset(
    name="fgvc_aircraft",
    folders=("fgvc_aircraft", "fgvc-aircraft-2013b/data"),
    lists=AircraftLists(),
    classes=100,
    images=(3334, 3333, 3333),
    templates=("a photo of a {}, a type of aircraft.",),
    prompt_file="CuPL_prompts_fgvcaircraft.json",
    source="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft",
    torchvision="FGVCAircraft",
    fetched="fgvc-aircraft-2013b/data",
)
EUROSAT = ClipDataset(
    name="eurosat",
    folders=("eurosat/2750",),
    lists=SplitFile("split_zhou_EuroSAT.json"),
    classes=10,
    images=(13_500, 5400, 8100),
    templates=("a centered satellite photo of {}.",),
    prompt_file="CuPL_prompts_eurosat.json",
    source="https://github.com/phelber/EuroSAT",
    torchvision="EuroSAT",
    fetched="eurosat/2750",
)
IMAGENET_A = _imagenet(
    "imagenet_a",
    ("imagenet-a", "imagenet-adversarial/imagenet-a"),
    WnidFolders(),
    200,
    7500,
    "https://github.com/hendrycks/natural-adv-examples",
)
IMAGENET_V2 = _imagenet(
    "imagenet_v2",
    ("imagenetv2-matched-frequency-format-val", "imagenetv2/imagenetv2-matched-frequency-format-val"),
    NumberFolders(),
    1000,
    10_000,
    "https://github.com/modestyachts/ImageNetV2",
)
IMAGENET_R = _imagenet(
    "imagenet_r",
    ("imagenet-r", "imagenet-rendition/imagenet-r"),
    WnidFolders(),
    200,
    30_000,
    "https://github.com/hendrycks/imagenet-r",
)
IMAGENET_SKETCH = _imagenet(
    "imagenet_sketch",
    ("ImageNet-Sketch", "imagenet-sketch/images"),
    WnidFolders(),
    1000,
    50_889,
    "https://github.com/HaohanWang/ImageNet-Sketch",
)
CUB200 = ClipDataset(
    name="cub200",
    folders=("CUB_200_2011", "CUB_200_2011/CUB_200_2011", "cub200/CUB_200_2011"),
    lists=CubLists(),
    classes=200,
    images=(5994, 0, 5794),
    templates=("a photo of a {}, a type of bird.",),
    prompt_file="CuPL_prompts_cub200.json",
    prompt_advice=CUPL_UNPUBLISHED,
    source="https://data.caltech.edu/records/65de6-vp158",
)

CATALOGUE = {
    dataset.name: dataset
    for dataset in (
        IMAGENET,
        FLOWERS102,
        DTD,
        OXFORD_PETS,
        STANFORD_CARS,
        UCF101,
        CALTECH101,
        FOOD101,
        SUN397,
        FGVC_AIRCRAFT,
        EUROSAT,
        IMAGENET_A,
        IMAGENET_V2,
        IMAGENET_R,
        IMAGENET_SKETCH,
        CUB200,
    )
}
