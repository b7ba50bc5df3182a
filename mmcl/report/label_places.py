"""Places for labels beside marks, so that nothing covers anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

DISTANCES = (0.0, 6.0, 14.0, 24.0, 36.0, 50.0, 66.0, 84.0)
DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))
MARGIN = 3.0


class Box(NamedTuple):
    """A rectangle in the units of a picture, ``y`` downwards."""

    left: float
    top: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        """Its middle."""
        return self.left + self.width / 2, self.top + self.height / 2

    def overlap(self, other: Box) -> float:
        """Return the area that two rectangles share."""
        across = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        down = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
        return max(across, 0.0) * max(down, 0.0)

    def within(self, other: Box) -> bool:
        """Return whether it lies inside of another."""
        return math.isclose(self.overlap(other), self.width * self.height)


def place_labels(
    marks: Sequence[Box], sizes: Sequence[tuple[float, float]], frame: Box, obstacles: Sequence[Box] = ()
) -> list[Box]:
    """Return a place for the label of each mark, inside the frame.

    Greedy, from the topmost mark down: the nearest place that covers no mark, no obstacle and no earlier label or,
    where there is none, that which covers least.

    Args:
        marks: what is labelled.
        sizes: width and height of each label.
        frame: where labels may be.
        obstacles: what no label shall cover beside the marks.
    """
    places: dict[int, Box] = {}
    for index in sorted(range(len(marks)), key=lambda index: (marks[index].centre[1], marks[index].centre[0])):
        taken = [*marks, *obstacles, *places.values()]
        places[index] = _best(_candidates(marks[index], sizes[index]), frame, taken)
    return [places[index] for index in range(len(marks))]


def _candidates(mark: Box, size: tuple[float, float]) -> list[Box]:
    """Return places around a mark, the near ones first."""
    x, y = mark.centre
    width, height = size
    found = []
    for distance in DISTANCES:
        for right, down in DIRECTIONS:
            middle_x = x + right * (mark.width / 2 + MARGIN + distance + width / 2)
            middle_y = y + down * (mark.height / 2 + distance + height / 2)
            found.append(Box(middle_x - width / 2, middle_y - height / 2, width, height))
    return found


def _best(candidates: Sequence[Box], frame: Box, taken: Sequence[Box]) -> Box:
    inside = [box for box in candidates if box.within(frame)] or list(candidates)
    free = (box for box in inside if not any(box.overlap(other) for other in taken))
    return next(free, None) or min(inside, key=lambda box: sum(box.overlap(other) for other in taken))
