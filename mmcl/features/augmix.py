"""AugMix on batches: three random chains of operations on each crop, mixed with it.

Every operation follows Pillow's arithmetic on whole levels; only the affine ones may differ from it, by one level,
where float32 meets a whole number. :mod:`mmcl.features.augmix_exact` is the same image by image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

OPERATIONS = (
    "autocontrast", "equalize", "posterize", "rotate", "solarize",
    "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip
CHAINS, LONGEST = 3, 3
LEVELS = (0.1, 1.0)
MIX_DRAWS = CHAINS + 1 + CHAINS + 3 * CHAINS * LONGEST
_ALMOST = 1e-3  # what float32 may miss of a whole level before it is cut off
_CACHED_PIXELS = 4 * 3 * 224 * 224  # on which a CPU works at once, so that they stay in its cache


class MixDraws(NamedTuple):
    """Random choices behind N views.

    ``weights`` float32 ``(N, 3)``: share of each chain, of sum 1; ``blends`` float32 ``(N,)``: share of the image
    itself; ``depths`` int64 ``(N, 3)``: operations in each chain; ``operations`` int64, ``levels`` and ``signs``
    float64 ``(N, 3, 3)``: what each step of each chain does.
    """

    weights: Tensor
    blends: Tensor
    depths: Tensor
    operations: Tensor
    levels: Tensor
    signs: Tensor

    def select(self, rows: Tensor | slice) -> MixDraws:
        """Return the choices of some views."""
        return MixDraws(*(part[rows] for part in self))

    def spare(self, rows: Tensor | slice) -> MixDraws:
        """Return choices that leave some views as they are."""
        blends, depths = self.blends.clone(), self.depths.clone()
        blends[rows], depths[rows] = 1.0, 0
        return self._replace(blends=blends, depths=depths)


def mix_draws(numbers: Tensor) -> MixDraws:
    """Turn uniform numbers in [0, 1), ``(N, 34)``, into choices.

    The shares of the chains are Dirichlet(1, 1, 1): exponential numbers over their sum; Beta(1, 1) is uniform.
    """
    numbers = numbers.double()
    exponentials = -torch.log1p(-numbers[:, :CHAINS]) + 1e-30
    weights = exponentials / exponentials.sum(1, keepdim=True)
    depths = (numbers[:, CHAINS + 1 : 2 * CHAINS + 1] * LONGEST).long() + 1
    steps = numbers[:, 2 * CHAINS + 1 :].view(-1, 3, CHAINS, LONGEST)
    operations = (steps[:, 0] * len(OPERATIONS)).long()
    levels = LEVELS[0] + steps[:, 1] * (LEVELS[1] - LEVELS[0])
    return MixDraws(weights.float(), numbers[:, CHAINS].float(), depths, operations, levels, steps[:, 2])


def amounts(name: str, levels: Tensor, signs: Tensor, size: int) -> Tensor:
    """Return what a level means for an operation: bits, degrees, a threshold, a slope or pixels.

    Args:
        name: one of :data:`OPERATIONS`.
        levels: strength on a scale to 10, float64 ``(N,)``.
        signs: in [0, 1), float64 ``(N,)``; above 0.5 reverses rotation, shear and shift.
        size: side of the image.
    """
    direction = torch.where(signs > 0.5, -1.0, 1.0)
    if name == "posterize":
        return 4 - (levels * 4 / 10).trunc()
    if name == "solarize":
        return 256 - (levels * 256 / 10).trunc()
    if name == "rotate":
        return direction * (levels * 30 / 10).trunc()
    if name.startswith("shear"):
        return direction * (levels * 0.3 / 10)
    return direction * (levels * (size / 3) / 10).trunc()


def alter(name: str, images: Tensor, levels: Tensor, signs: Tensor) -> Tensor:
    """Apply one operation to a batch.

    Args:
        name: one of :data:`OPERATIONS`.
        images: uint8 ``(N, 3, S, S)``.
        levels: strength of each, float64 ``(N,)`` on the CPU.
        signs: direction of each, float64 ``(N,)`` on the CPU, see :func:`amounts`.

    Returns:
        uint8 ``(N, 3, S, S)``, perhaps the images themselves.
    """
    return _ALTER[name](images, amounts(name, levels, signs, images.shape[-1]))


def augmix(
    images: Tensor, draws: MixDraws, mean: tuple[float, ...], std: tuple[float, ...], out: Tensor | None = None
) -> Tensor:
    """Mix images with three altered copies of each.

    Args:
        images: the crops, uint8 ``(N, 3, S, S)``.
        draws: the choices of each, on the CPU.
        mean: mean of each channel on the scale 0 to 1.
        std: standard deviation of each channel on the scale 0 to 1.
        out: where the result goes, if given.

    Returns:
        ``m x + (1 - m) sum_i w_i chain_i(x)``, normalised, float32 ``(N, 3, S, S)``. The shares sum to 1, so it does
        not matter that the published form normalises first.
    """
    chains = images.repeat(CHAINS, 1, 1, 1)
    depths = draws.depths.T.flatten()
    for step in range(LONGEST):
        _one_step(chains, step < depths, *(part[:, :, step].T.flatten() for part in draws[3:]))
    shares = torch.cat([draws.blends[:, None], (1 - draws.blends)[:, None] * draws.weights], 1)
    mixed = torch.empty(images.shape, device=images.device) if out is None else out
    _mix([images, *chains.chunk(CHAINS)], shares, mean, std, mixed)
    return mixed


def _mix(copies: list[Tensor], shares: Tensor, mean: tuple[float, ...], std: tuple[float, ...], mixed: Tensor) -> None:
    """Add up copies of images, each by its share ``(N, copies)``, and normalise."""
    mean_, std_ = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
    factors = (shares[:, :, None, None, None] / (255 * std_)).to(mixed.device)
    shift = (-mean_ / std_).to(mixed.device)
    at_once = _at_once(mixed)
    for start in range(0, len(mixed), at_once):
        rows = slice(start, start + at_once)
        torch.addcmul(shift, copies[0][rows].float(), factors[rows, 0], out=mixed[rows])
        for number, copy in enumerate(copies[1:], 1):
            mixed[rows].addcmul_(copy[rows].float(), factors[rows, number])


def _one_step(chains: Tensor, going_on: Tensor, operations: Tensor, levels: Tensor, signs: Tensor) -> None:
    """Alter in place the chains that go on, those of one operation together."""
    words = _as_words(chains)
    for number, name in enumerate(OPERATIONS):
        chosen = (going_on & (operations == number)).nonzero().flatten()
        for rows in torch.split(chosen, _at_once(chains)) if len(chosen) else ():
            there = rows.to(chains.device)
            altered = alter(name, chains.index_select(0, there), levels[rows], signs[rows])
            words.index_copy_(0, there, _as_words(altered))


def _at_once(images: Tensor) -> int:
    """Return how many images to work on: all on a GPU, as many as stay in the cache on a CPU."""
    return len(images) if images.is_cuda else max(1, _CACHED_PIXELS // images[0].numel())


def _as_words(images: Tensor) -> Tensor:
    """Return the pixels of each image as the widest whole numbers that fit: they are copied one by one."""
    rows = images.flatten(1)
    fits = (word for word in (torch.int64, torch.int32, torch.int16) if rows.shape[1] % word.itemsize == 0)
    return rows.view(next(fits, torch.uint8))


# ------------------------------------------------------------------ operations on levels


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    masks = 256 - 2 ** (8 - bits.long())
    return images & _each(masks.to(torch.uint8), images)


def _solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    # The sign of (threshold - 1 - level), spread over all bits, inverts the levels from the threshold upwards.
    below = _each(thresholds - 1, images).to(torch.int16) - images
    return images ^ below.bitwise_right_shift_(15).to(torch.uint8)


def _autocontrast(images: Tensor, _: Tensor) -> Tensor:
    pixels = images.flatten(2)
    low, high = (extreme.double()[:, :, None] for extreme in (pixels.amin(2), pixels.amax(2)))
    levels = torch.arange(256, dtype=torch.float64, device=images.device)
    # A tensor above the line: a number there would be multiplied by the reciprocal, which rounds otherwise.
    scale = torch.full_like(low, 255.0) / (high - low).clamp(min=1.0)
    stretched = (levels * scale - low * scale).clamp_(0.0, 255.0)
    return _look_up(images, _table_places(images), torch.where(high > low, stretched, levels))


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    places = _table_places(images)
    counts = torch.bincount(places, minlength=images.shape[0] * 3 * 256).view(-1, 3, 256)
    levels = torch.arange(256, device=images.device)
    highest = torch.where(counts > 0, levels, -1).amax(2, keepdim=True)
    step = (counts.sum(2, keepdim=True) - counts.gather(2, highest)) // 255
    before = counts.cumsum(2) - counts
    flat = ((step // 2 + before) // step.clamp(min=1)).clamp_(max=255)
    return _look_up(images, places, torch.where(step > 0, flat, levels))


def _look_up(images: Tensor, places: Tensor, tables: Tensor) -> Tensor:
    """Replace levels by those in a table for each image and channel, ``(N, 3, 256)``."""
    return tables.to(torch.uint8).flatten().index_select(0, places).view(images.shape)


def _table_places(images: Tensor) -> Tensor:
    """Return where each level stands in the tables one behind the other, int32 ``(N * 3 * H * W,)``."""
    starts = torch.arange(len(images) * 3, dtype=torch.int32, device=images.device) * 256
    return (images.int() + starts.view(-1, 3, 1, 1)).flatten()


def _each(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images.device).view(-1, 1, 1, 1)


# ------------------------------------------------------------------ operations on places


def _rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Sample bilinearly around the middle; border pixels reach half a pixel further, black beyond."""
    rows = degrees.nonzero().flatten()
    if not len(rows):
        return images
    there = rows.to(images.device)
    size = images.shape[-1]
    angles = -degrees[rows].deg2rad().view(-1, 1)
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) * (2 / size) - 1.0  # from -1 to 1 over the image
    across, down = ((turn(angles) * centres).to(images.device, torch.float32) for turn in (torch.cos, torch.sin))
    columns = across[:, None, :] + down[:, :, None]
    lines = across[:, :, None] - down[:, None, :]
    grid, pixels = torch.stack([columns, lines], 3), images.index_select(0, there).float()
    sampled = functional.grid_sample(pixels, grid, "bilinear", "border", align_corners=False)
    inside = torch.maximum(columns.abs_(), lines.abs_()) <= 1.0
    turned = _cut_off(sampled) * inside[:, None]
    if len(rows) == len(images):
        return turned
    rest = images.clone(memory_format=torch.contiguous_format)
    _as_words(rest).index_copy_(0, there, _as_words(turned))
    return rest


def _cut_off(levels: Tensor) -> Tensor:
    """Turn levels, float32, into the whole ones below them, uint8; by way of int16, which is faster on a CPU."""
    return levels.add_(_ALMOST).to(torch.int16).to(torch.uint8)


def _shear_x(images: Tensor, slopes: Tensor) -> Tensor:
    """Move each row by a fraction of pixels, more the further down it is."""
    return _move_rows(images, slopes[:, None] * (torch.arange(images.shape[-2], dtype=torch.float64) + 0.5))


def _translate_x(images: Tensor, shifts: Tensor) -> Tensor:
    """Move all rows alike by whole pixels."""
    return _move_rows(images, shifts[:, None].expand(-1, images.shape[-2]))


def _shear_y(images: Tensor, slopes: Tensor) -> Tensor:
    return _shear_x(images.mT.contiguous(), slopes).mT.contiguous()


def _translate_y(images: Tensor, shifts: Tensor) -> Tensor:
    """Move by whole rows: rows behind one another are one long row."""
    plane = images.flatten(2)[:, :, None]
    return _move_rows(plane, shifts[:, None] * images.shape[-1]).view(images.shape)


def _move_rows(images: Tensor, offsets: Tensor) -> Tensor:
    """Read each row of pixels an offset further right.

    Between two pixels linearly and cut off to whole levels; border pixels reach half a pixel further, black beyond.

    Args:
        images: uint8 ``(N, 3, H, W)``.
        offsets: in pixels, float64 ``(N, H)`` on the CPU.
    """
    width = images.shape[3]
    margin = min(int(offsets.abs().max()) + 2, width + 1)
    offsets = offsets.clamp(-width, width)
    first = images[..., :1].expand(-1, -1, -1, margin)
    last = images[..., -1:].expand(-1, -1, -1, margin)
    wide = torch.cat([first, images, last], 3)
    whole = offsets.floor()
    shares = (offsets - whole).float().to(images.device)[:, None, :, None]
    moved = _windows(wide, whole.long() + margin, width)
    if bool((offsets != whole).any()):
        further = _windows(wide, whole.long() + margin + 1, width)
        moved = _cut_off(torch.lerp(moved.float(), further.float(), shares))
    inside = functional.pad(images.new_full((1, 1, 1, width), 255), (margin, margin))
    return moved & _windows(
        inside.expand(len(images), 1, images.shape[2], -1), (offsets + 0.5).floor().long() + margin, width
    )


def _windows(wide: Tensor, starts: Tensor, width: int) -> Tensor:
    """Cut a piece out of each row: ``(N, C, H, W')`` with starts ``(N, H)`` to ``(N, C, H, width)``.

    All pieces of the memory are the rows of a matrix that overlap, from which whole rows are copied.
    """
    wide = wide.contiguous()
    size, channels, height, length = wide.shape
    places = torch.arange(size * channels * height).view(size, channels, height) * length + starts[:, None]
    pieces = wide.flatten().as_strided((wide.numel() - width + 1, width), (1, 1))
    return pieces.index_select(0, places.flatten().to(wide.device)).view(size, channels, height, width)


_ALTER: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "posterize": _posterize,
    "rotate": _rotate,
    "solarize": _solarize,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
