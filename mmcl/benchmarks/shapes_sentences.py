"""What the ``shapes`` world says: captions of scenes, prompts of classes, and longer descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mmcl.benchmarks.prompts import KINDS, SIMPLE, compose
from mmcl.benchmarks.shapes_world import BACKDROPS, CLASS_NAMES, COLOURS, SHAPES, TEXTURES, Scenes
from mmcl.errors import UserError, nearest
from mmcl.protocol import Sentences
from mmcl.randomness import key, uniforms

TIP_TEMPLATES = (*SIMPLE, "a drawing of a {}.", "a picture of the {}.", "a small {}.", "one {}.")
FULL_TEMPLATES = (
    *TIP_TEMPLATES,
    "a large {}.",
    "a tilted {}.",
    "a dark photo of a {}.",
    "a bright photo of a {}.",
    "a blurry photo of the {}.",
    "a striped {}.",
    "a dotted {}.",
    "a {} on a plain backdrop.",
    "a {} on a striped backdrop.",
)

# Two traits each, of which neither names the colour or the shape.
COLOUR_TRAITS = {
    "red": ("the colour of blood", "the warm tone of a ripe tomato"),
    "orange": ("the colour of a carrot", "the warm tone of a pumpkin"),
    "yellow": ("the colour of a lemon", "the warm tone of butter"),
    "green": ("the colour of grass", "the fresh tone of a leaf"),
    "cyan": ("the colour of a tropical lagoon", "the cool tone of turquoise"),
    "blue": ("the colour of the deep sea", "the cool tone of denim"),
    "purple": ("the colour of a plum", "the royal tone of lavender"),
    "pink": ("the colour of bubble gum", "the sweet tone of a flamingo"),
}
SHAPE_TRAITS = {
    "circle": ("a round outline without corners", "a full disc like a coin"),
    "square": ("four equal sides", "four right corners like a box"),
    "triangle": ("three straight sides", "three corners like a roof"),
    "star": ("five points", "sharp rays as in the night sky"),
    "cross": ("two bars that meet in the middle", "four arms like a plus sign"),
    "ring": ("a hole in the middle", "a round band like a wheel"),
    "heart": ("two lobes above one tip", "the outline of the sign of love"),
    "moon": ("two horns", "a curved crescent like a sickle"),
}

# The last two name neither the shape nor the colour.
DESCRIPTION_FORMS = (
    "a {colour} {shape} has {shape_trait_0} and {colour_trait_0}.",
    "a {shape} with {shape_trait_1} in {colour_trait_0}.",
    "the {colour} {shape} has {shape_trait_0} on a plain backdrop.",
    "this {colour} figure has {shape_trait_1}.",
    "the {shape} has {colour_trait_1}.",
    "a {colour} {shape} can be small or large, striped or dotted, and has {colour_trait_1}.",
    "look for {shape_trait_1} in {colour_trait_0}.",
    "this figure has {shape_trait_0} and {colour_trait_1}.",
)
_TEMPLATES = {"simple": SIMPLE, "tip": TIP_TEMPLATES, "tip_cupl": TIP_TEMPLATES, "full": FULL_TEMPLATES}


def descriptions(label: int) -> tuple[str, ...]:
    """Return the eight longer sentences about a class."""
    colour, shape = COLOURS[label // len(SHAPES)], SHAPES[label % len(SHAPES)]
    words = {"colour": colour, "shape": shape}
    for number in range(2):
        words[f"colour_trait_{number}"] = COLOUR_TRAITS[colour][number]
        words[f"shape_trait_{number}"] = SHAPE_TRAITS[shape][number]
    return tuple(form.format(**words) for form in DESCRIPTION_FORMS)


def class_sentences(labels: Sequence[int], prompts: str) -> Sentences:
    """Return the sentences of a kind of prompts about classes, grouped by class in the given order.

    Args:
        labels: classes of the world; ``classes`` of the result are positions in this sequence.
        prompts: ``simple`` (one template), ``tip`` (five), ``full`` (all), ``cupl`` (the eight descriptions) or
            ``tip_cupl`` (templates, then descriptions).

    Raises:
        UserError: no such kind.
    """
    if prompts not in KINDS:
        raise UserError(f"method.prompts={prompts}: expected one of {', '.join(KINDS)}.{nearest(prompts, KINDS)}")
    names = [CLASS_NAMES[label] for label in labels]
    described = {CLASS_NAMES[label]: descriptions(label) for label in labels}
    return compose(names, _TEMPLATES.get(prompts, ()), described if prompts.endswith("cupl") else {})


class Caption(NamedTuple):
    """What is said of a scene: ``text``, and the ``colour`` and ``shape`` that it tells, -1 where it does not."""

    text: str
    colour: int
    shape: int


def captions(scenes: Scenes, epoch: int, described: float = 0.3, unnamed: float = 0.3) -> list[Caption]:
    """Return one caption for each scene, another one in another epoch.

    Args:
        scenes: N scenes.
        epoch: keys the choice of words.
        described: share of captions that are longer descriptions.
        unnamed: chance that the colour is not said, and the chance that the shape is a "figure".
    """
    draws = uniforms(key("shapes", "captions", epoch), scenes.seed, 8).tolist()
    kinds = zip(scenes.colour.tolist(), scenes.shape.tolist(), strict=True)
    small, dark = (scenes.radius < 0.58).tolist(), (scenes.paper.amax(1) < 0.5).tolist()
    looks = zip(scenes.texture.tolist(), scenes.backdrop.tolist(), small, dark, strict=True)
    spoken = []
    for (colour, shape), look, u in zip(kinds, looks, draws, strict=True):
        if u[0] < described:
            text = descriptions(colour * len(SHAPES) + shape)[int(u[1] * len(DESCRIPTION_FORMS))]
            spoken.append(Caption(text, colour, shape))
        else:
            said_colour, said_shape = -1 if u[4] < unnamed else colour, -1 if u[4] > 1 - unnamed else shape
            spoken.append(Caption(_caption(said_colour, said_shape, look, u), said_colour, said_shape))
    return spoken


def vocabulary() -> tuple[str, ...]:
    """Return all words of prompts, descriptions and captions, sorted."""
    everything = range(len(CLASS_NAMES))
    spoken = [*class_sentences(everything, "full").texts, *class_sentences(everything, "cupl").texts]
    spoken += [*TEXTURES, *BACKDROPS, "the figure large light dark backdrop"]
    letters = "".join(letter if letter.isalnum() else " " for letter in " ".join(spoken))
    return tuple(sorted(set(letters.split())))


def _caption(colour: int, shape: int, look: tuple[int, int, bool, bool], u: list[float]) -> str:
    """Put a caption together: a template around size, texture, colour and shape, perhaps with the backdrop."""
    texture, backdrop, small, dark = look
    words = [
        ("small" if small else "large") if u[2] < 0.25 else "",
        TEXTURES[texture] if u[3] < 0.25 else "",
        "" if colour < 0 else COLOURS[colour],
        "figure" if shape < 0 else SHAPES[shape],
    ]
    where = ""
    if u[5] < 0.25:
        where = f" on a {('dark' if dark else 'light') if u[6] < 0.5 else BACKDROPS[backdrop]} backdrop"
    phrase = " ".join(word for word in words if word) + where
    # One caption in six speaks as the prompts do, whether or not it is true: the web is not careful.
    templates = FULL_TEMPLATES if u[1] > 0.83 else ("{}.", "a {}.", "the {}.", *TIP_TEMPLATES[:3], "one {}.")
    return templates[int(u[7] * len(templates))].format(phrase)
