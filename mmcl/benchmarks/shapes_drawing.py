"""Scenes of the ``shapes`` world as pixels, and the shifts that give its out-of-distribution sets.

Only additions, products, roots, minima and maxima are done for pixels, so that an image is the same in every batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmcl.benchmarks.shapes_world import TILT, Scenes
from mmcl.randomness import key, uniforms

IMAGE_SIZE = 32
_CHUNK = 512


def draw_images(scenes: Scenes, shift: str) -> Tensor:
    """Draw scenes as uint8 pixels ``(N, 3, 32, 32)`` under a shift, ``plain`` being none."""
    count = len(scenes.shape)
    chunks = [_part(scenes, start, start + _CHUNK) for start in range(0, count, _CHUNK)]
    drawn = [SHIFTS[shift].draw(part) for part in chunks]
    return torch.cat(drawn) if drawn else torch.empty(0, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)


@dataclass(frozen=True)
class Shift:
    """How images of a set differ from plain ones: other scenes, another hand, other pixels.

    Attributes:
        scenes: alters the scenes.
        paint: draws scenes as RGB in [0, 1], float32 ``(N, 3, 32, 32)``.
        pixels: alters what was drawn, before the noise of the camera.
        noise: standard deviation of the noise that is added to that of the scene.
    """

    scenes: Callable[[Scenes], Scenes]
    paint: Callable[[Scenes], Tensor]
    pixels: Callable[[Tensor], Tensor]
    noise: float

    def draw(self, scenes: Scenes) -> Tensor:
        """Draw scenes as uint8 pixels ``(N, 3, 32, 32)``."""
        pixels = self.pixels(self.paint(self.scenes(scenes)))
        level = (scenes.noise + self.noise)[:, None, None, None]
        return ((pixels + level * _pixel_noise(scenes)).clamp(0, 1) * 255).round().to(torch.uint8)


def paint_filled(scenes: Scenes) -> Tensor:
    """Draw textured shapes on a backdrop with a disc of clutter, float32 ``(N, 3, 32, 32)``."""
    x, y = _grid()
    canvas = _mix(scenes.paper, scenes.second_paper, _backdrop(scenes, x, y))
    canvas = _cover(canvas, _flat(scenes.clutter_ink), _clutter(scenes, x, y))
    ink = _mix(scenes.ink, scenes.second_ink, _texture(scenes, x, y))
    return _cover(canvas, ink, _inside(_signed_distance(scenes, x, y)))


def paint_outlined(scenes: Scenes) -> Tensor:
    """Draw outlines with a pale filling on white paper, float32 ``(N, 3, 32, 32)``."""
    x, y = _grid()
    distance, ink = _signed_distance(scenes, x, y), _flat(scenes.ink)
    filled = _cover(torch.ones(len(distance), 3, IMAGE_SIZE, IMAGE_SIZE), ink, _inside(distance) * 0.5)
    return _cover(filled, ink, _inside(distance.abs() - 0.09))


def turn_fully(scenes: Scenes) -> Scenes:
    """Turn shapes any way round: what was a tilt of 25 degrees becomes half a turn."""
    return scenes._replace(turn=scenes.turn * (math.pi / TILT))


def invert_lightness(pixels: Tensor) -> Tensor:
    """Make light what was dark and keep the hue: the middle of the largest and smallest channel m becomes 1 - m."""
    return pixels + (1 - pixels.amax(1, keepdim=True) - pixels.amin(1, keepdim=True))


def blur(pixels: Tensor) -> Tensor:
    """Smooth by a binomial kernel of nine pixels in both directions."""
    for _ in range(4):
        for axis in (2, 3):
            first, last = pixels.narrow(axis, 0, 1), pixels.narrow(axis, IMAGE_SIZE - 1, 1)
            padded = torch.cat([first, pixels, last], axis)
            before, after = (padded.narrow(axis, start, IMAGE_SIZE) for start in (0, 2))
            pixels = (before + after) * 0.25 + pixels * 0.5
    return pixels


def _as_they_are(scenes: Scenes) -> Scenes:
    return scenes


def _untouched(pixels: Tensor) -> Tensor:
    return pixels


SHIFTS = {
    "plain": Shift(_as_they_are, paint_filled, _untouched, noise=0.0),
    "sketch": Shift(_as_they_are, paint_outlined, _untouched, noise=0.0),
    "noise": Shift(_as_they_are, paint_filled, _untouched, noise=0.15),
    "inverted": Shift(_as_they_are, paint_filled, invert_lightness, noise=0.0),
    "blur": Shift(_as_they_are, paint_filled, blur, noise=0.0),
    "rotated": Shift(turn_fully, paint_filled, _untouched, noise=0.0),
}


# Signed distances: negative inside, about 1 for a unit; points are (N, 32, 32) in the frame of the shape


def _circle(u: Tensor, v: Tensor) -> Tensor:
    return (u * u + v * v).sqrt() - 0.9


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.78


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs() * 0.866 - v * 0.5, v) - 0.5


def _star(u: Tensor, v: Tensor) -> Tensor:
    """A pentagram lies on the inner side of at least four of its five lines."""
    angles = [2 * math.pi * number / 5 for number in range(5)]
    sides = torch.stack([u * math.sin(angle) + v * math.cos(angle) for angle in angles])
    return sides.sort(0).values[3] - 0.36


def _cross(u: Tensor, v: Tensor) -> Tensor:
    a, b = u.abs(), v.abs()
    return torch.minimum(torch.maximum(a - 0.28, b - 0.92), torch.maximum(b - 0.28, a - 0.92))


def _ring(u: Tensor, v: Tensor) -> Tensor:
    return ((u * u + v * v).sqrt() - 0.68).abs() - 0.22


def _heart(u: Tensor, v: Tensor) -> Tensor:
    """A disc, sheared upwards on both sides."""
    low = v * 1.1 + u.abs() * 0.75 - 0.25
    return (u * u + low * low).sqrt() - 0.82


def _moon(u: Tensor, v: Tensor) -> Tensor:
    bite = u - 0.5
    return torch.maximum((u * u + v * v).sqrt() - 0.9, 0.75 - (bite * bite + v * v).sqrt())


# In the order of SHAPES.
_DISTANCES = (_circle, _square, _triangle, _star, _cross, _ring, _heart, _moon)


def _signed_distance(scenes: Scenes, x: Tensor, y: Tensor) -> Tensor:
    """Return the distance of pixels from the outline in half image sides, ``(N, 32, 32)``."""
    turn = scenes.turn.double()
    cosine, sine = (_of_image(part.float()) for part in (turn.cos(), turn.sin()))
    dx, dy = x - _of_image(scenes.centre[:, 0]), y - _of_image(scenes.centre[:, 1])
    stretch = _of_image(scenes.elongation.sqrt())
    radius = _of_image(scenes.radius)
    u = (dx * cosine + dy * sine) / radius * stretch
    v = (dy * cosine - dx * sine) / radius / stretch
    distance = torch.empty_like(u)
    for number, function in enumerate(_DISTANCES):
        rows = (scenes.shape == number).nonzero().flatten()
        distance[rows] = function(u[rows], v[rows])
    return distance * radius


def _texture(scenes: Scenes, x: Tensor, y: Tensor) -> Tensor:
    """Return the share of the second ink ``(N, 32, 32)``: none, stripes, dots or checks."""
    along, across = _along(scenes.texture_direction, x, y)
    phase = _of_image(scenes.texture_phase)
    first, second = (_wave(part * 2.6 + phase) for part in (along, across))
    patterns = torch.stack([torch.zeros_like(first), first, first * second, (first - second).abs()], 1)
    return _choose(patterns, scenes.texture)


def _backdrop(scenes: Scenes, x: Tensor, y: Tensor) -> Tensor:
    """Return the share of the second paper ``(N, 32, 32)``: none, a slope, stripes or patches."""
    along, across = _along(scenes.backdrop_direction, x, y)
    first, second = _wave(along * 1.7), _wave(across * 1.1 + 0.3)
    patterns = torch.stack([torch.zeros_like(first), (along * 0.4 + 0.5).clamp(0, 1), first, first * second], 1)
    return _choose(patterns, scenes.backdrop)


def _clutter(scenes: Scenes, x: Tensor, y: Tensor) -> Tensor:
    dx, dy, radius = (_of_image(part) for part in scenes.clutter.unbind(1))
    return _inside(((x - dx) * (x - dx) + (y - dy) * (y - dy)).sqrt() - radius)


def _pixel_noise(scenes: Scenes) -> Tensor:
    """Return noise of mean 0 and variance 1, the sum of three uniform numbers, ``(N, 3, 32, 32)``."""
    draws = uniforms(key("shapes", "pixels"), scenes.seed, 5 * IMAGE_SIZE**2).view(-1, 5, IMAGE_SIZE, IMAGE_SIZE)
    shared = draws[:, 3:4] + draws[:, 4:5]
    return (draws[:, :3] + shared - 1.5) * 2.0


def _grid() -> tuple[Tensor, Tensor]:
    """Return x and y of the pixels in [-1, 1], each ``(32, 32)``; y points upwards."""
    line = (torch.arange(IMAGE_SIZE) * 2 + 1 - IMAGE_SIZE) / IMAGE_SIZE
    x, y = line[None, :].expand(IMAGE_SIZE, -1), -line[:, None].expand(-1, IMAGE_SIZE)
    return x, y


def _along(direction: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    dx, dy = (_of_image(part) for part in direction.unbind(1))
    return x * dx + y * dy, y * dx - x * dy


def _wave(position: Tensor) -> Tensor:
    """Return a soft square wave in [0, 1] of period 1."""
    return (((position - position.floor()) - 0.5).abs() * 8 - 1.5).clamp(0, 1)


def _inside(distance: Tensor) -> Tensor:
    """Return how much of each pixel lies inside an outline."""
    return (0.5 - distance * (IMAGE_SIZE / 2)).clamp(0, 1)


def _choose(patterns: Tensor, kinds: Tensor) -> Tensor:
    return patterns[torch.arange(len(kinds)), kinds]


def _mix(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    return _cover(_flat(first), _flat(second), share)


def _cover(below: Tensor, above: Tensor, share: Tensor) -> Tensor:
    return below + (above - below) * share[:, None]


def _flat(colour: Tensor) -> Tensor:
    return colour[:, :, None, None]


def _of_image(numbers: Tensor) -> Tensor:
    return numbers[:, None, None]


def _part(scenes: Scenes, start: int, stop: int) -> Scenes:
    return Scenes(*(part[start:stop] for part in scenes))
