"""The world of the ``shapes`` benchmark: coloured shapes in scenes, every scene a pure function of its key.

Eight colours times eight shapes are 64 classes such as "red circle"; 44 of them are seen by the mini CLIP, 20 are held
out. A scene says how an image of a class looks: place, size, rotation, hue, texture, backdrop, clutter and noise.
The *web* is a world where all of this is left to chance, the mini CLIP's training data. A *collection*
has habits on top: each class prefers a hue, a tilt, a proportion, a texture and a backdrop of its own, as classes of
real data sets do, which is what a few shots or a memory can learn and a text cannot tell.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mmcl.randomness import generator, key, uniforms

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "moon")
TEXTURES = ("plain", "striped", "dotted", "checked")
BACKDROPS = ("plain", "graded", "striped", "patchy")
CLASS_NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)

HUES = torch.tensor([0.0, 28.0, 55.0, 115.0, 180.0, 225.0, 275.0, 325.0], dtype=torch.float64) / 360
HUE_REACH = torch.tensor([28.0, 27.0, 27.0, 60.0, 45.0, 45.0, 50.0, 35.0], dtype=torch.float64) / 360
TILT = 25 / 180 * math.pi
HUE_HABIT, TURN_HABIT = 0.65, 45 / 180 * math.pi
_LARGEST_INDEX = 1 << 20
_DRAWS = 32


class Scenes(NamedTuple):
    """How N images look. Floats are float32; colours are RGB in [0, 1]; lengths are in half image sides.

    ``shape``, ``colour``, ``texture``, ``backdrop`` int64 ``(N,)``; ``centre`` ``(N, 2)``; ``radius``, ``elongation``,
    ``turn`` (radians), ``texture_phase``, ``noise`` (standard deviation of a pixel) ``(N,)``; ``texture_direction``,
    ``backdrop_direction`` unit vectors ``(N, 2)``; ``ink``, ``second_ink``, ``paper``, ``second_paper`` ``(N, 3)``;
    ``clutter`` x, y and radius of a disc ``(N, 3)``; ``clutter_ink`` ``(N, 3)``; ``seed`` int64 ``(N,)`` keys
    what is drawn for each pixel and what is said.
    """

    shape: Tensor
    colour: Tensor
    texture: Tensor
    backdrop: Tensor
    centre: Tensor
    radius: Tensor
    elongation: Tensor
    turn: Tensor
    texture_phase: Tensor
    noise: Tensor
    texture_direction: Tensor
    backdrop_direction: Tensor
    ink: Tensor
    second_ink: Tensor
    paper: Tensor
    second_paper: Tensor
    clutter: Tensor
    clutter_ink: Tensor
    seed: Tensor


class Habits(NamedTuple):
    """What each of the 64 classes prefers, each ``(64,)``, and how many of its images follow the preferences.

    ``hue`` is added in units of the reach of the colour, ``turn`` in radians, ``elongation`` as a logarithm: all images
    follow those; ``share`` of them follow ``texture``, ``backdrop`` and ``backdrop_hue``.
    """

    hue: Tensor
    elongation: Tensor
    turn: Tensor
    texture: Tensor
    backdrop: Tensor
    backdrop_hue: Tensor
    share: float


def web_habits() -> Habits:
    """Return no habits at all: every look is left to chance."""
    nothing = torch.zeros(len(CLASS_NAMES), dtype=torch.float64)
    return Habits(nothing, nothing, nothing, nothing.long(), nothing.long(), nothing, 0.0)


def collection_habits(world_seed: int) -> Habits:
    """Return the habits of the classes in the collection of a seed."""
    classes = torch.arange(len(CLASS_NAMES))
    drawn = uniforms(key("shapes", world_seed, "habits"), classes, 6).double()
    return Habits(
        hue=_between(drawn[:, 0], -HUE_HABIT, HUE_HABIT),
        elongation=_between(drawn[:, 1], -0.45, 0.45),
        turn=_between(drawn[:, 5], -TURN_HABIT, TURN_HABIT),
        texture=(drawn[:, 2] * len(TEXTURES)).long(),
        backdrop=(drawn[:, 3] * len(BACKDROPS)).long(),
        backdrop_hue=drawn[:, 4],
        share=0.7,
    )


def held_out_classes() -> tuple[int, ...]:
    """Return the 20 classes that the mini CLIP never saw, ascending; each colour and each shape stays in five or more.

    On a shuffled 8x8 board they are two diagonals and half of a third one.
    """
    drawn = generator("shapes", "held out")
    rows, columns = (torch.randperm(8, generator=drawn).tolist() for _ in range(2))
    cells = [(row, (row + step) % 8) for step in range(3) for row in range(8)][:20]
    return tuple(sorted(rows[row] * len(SHAPES) + columns[column] for row, column in cells))


def class_labels(classes: str) -> tuple[int, ...]:
    """Return the labels of ``all``, ``seen`` or ``unseen`` classes, ascending."""
    held_out = set(held_out_classes())
    kept = {
        "all": range(len(CLASS_NAMES)),
        "seen": [label for label in range(len(CLASS_NAMES)) if label not in held_out],
        "unseen": sorted(held_out),
    }
    return tuple(kept[classes])


def draw_scenes(draw_key: int, labels: Tensor, indices: Tensor, habits: Habits) -> Scenes:
    """Draw one scene for each (label, index), whatever else is in the batch.

    Args:
        draw_key: what the scenes are for, from :func:`mmcl.randomness.key`, such as a world's seed and a split.
        labels: classes, int64 ``(N,)``.
        indices: number of each image in its class and split, below 2**20, int64 ``(N,)``.
        habits: preferences of the classes.
    """
    identities = labels * _LARGEST_INDEX + indices
    # Numbers of a scene are float64: rounded to float32 at the end, they do not depend on how a kernel was vectorised.
    u = uniforms(draw_key, identities, _DRAWS).double().unbind(1)
    colour, shape = labels // len(SHAPES), labels % len(SHAPES)
    follows = [u[16 + number] < habits.share for number in range(3)]
    hue_spread = 0.35 if habits.share == 0 else 0.25
    hue = HUES[colour] + HUE_REACH[colour] * (_between(u[0], -hue_spread, hue_spread) + habits.hue[labels])
    texture = torch.where(follows[0], habits.texture[labels], (u[1] * len(TEXTURES)).long())
    backdrop = torch.where(follows[1], habits.backdrop[labels], (u[2] * len(BACKDROPS)).long())
    paper_hue = torch.where(follows[2], habits.backdrop_hue[labels] + 0.1 * u[3], u[3])
    ink = rgb(hue, _between(u[4], 0.5, 1.0), _between(u[5], 0.5, 1.0))
    paper_value = _between(u[7], 0.1, 0.9)
    second_value = (paper_value + _between(u[22], -0.35, 0.35)).clamp(0, 1)
    scenes = Scenes(
        shape=shape,
        colour=colour,
        texture=texture,
        backdrop=backdrop,
        centre=torch.stack([_between(u[8], -0.25, 0.25), _between(u[9], -0.25, 0.25)], 1),
        radius=_between(u[10], 0.45, 0.72),
        elongation=torch.exp(_between(u[11], -0.15, 0.15) + habits.elongation[labels]),
        turn=_between(u[12], -TILT, TILT) + habits.turn[labels],
        texture_phase=u[13],
        noise=_between(u[14], 0.02, 0.09),
        texture_direction=_direction(u[15]),
        backdrop_direction=_direction(u[19]),
        ink=ink,
        second_ink=ink * _between(u[20], 0.35, 0.7)[:, None],
        paper=rgb(paper_hue, _between(u[6], 0.0, 0.5), paper_value),
        second_paper=rgb(paper_hue, _between(u[21], 0.0, 0.5), second_value),
        clutter=torch.stack([_between(u[23], -1, 1), _between(u[24], -1, 1), _between(u[25], 0.0, 0.33)], 1),
        clutter_ink=rgb(u[26], _between(u[27], 0.3, 1.0), _between(u[28], 0.3, 1.0)),
        seed=(u[29] * 2**24).long() * 2**24 + (u[30] * 2**24).long(),
    )
    return Scenes(*(part.float() if part.dtype == torch.float64 else part for part in scenes))


def rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Turn hue (1 is a full turn, any real number), saturation and value ``(N,)`` into RGB ``(N, 3)``."""
    sector = (hue[:, None] * 6 + torch.tensor([5.0, 3.0, 1.0], dtype=hue.dtype)) % 6
    fall = torch.minimum(sector, 4 - sector).clamp(0, 1)
    return value[:, None] * (1 - saturation[:, None] * fall)


def _between(draws: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * draws


def _direction(draws: Tensor) -> Tensor:
    angle = 2 * math.pi * draws
    return torch.stack([angle.cos(), angle.sin()], 1)
