"""What RECO learns, without any engine around it: a memory as pairs, and one fusion layer for each modality.

After Iscen, Caron, Fathi, Schmid, "Retrieval-Enhanced Contrastive Vision-Text Models", ICLR 2024. An image looks for
near images and reads the texts that these are paired with; a text looks for near texts and reads their images. A layer
fuses what was read into the embedding. What follows the paper is: search inside one modality, values of the other, one
layer on frozen embeddings, and alignment of refined with refined and with original embeddings. The number of heads, the
optimiser and the temperature could not be verified and are chosen here, and so are two stand-ins: pairs by class in
memories whose images and texts are unpaired, and a start at which a layer already passes on what it reads, which the
paper learns from millions of pairs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, normalize

from mmcl.memory.class_memory import MemoryContent
from mmcl.memory.prototypes import ClassRows
from mmcl.memory.search import RowIndex, make_index
from mmcl.methods.mml.blocks import CrossAttentionBlock, standardise
from mmcl.methods.mml.learner import near_rows


class Read(NamedTuple):
    """Embeddings with what they read in a memory.

    Attributes:
        embeddings: unit rows ``(B, D)``.
        near: rows of ``values`` that each reads, int64 ``(B, k)``; k is 0 where the memory has no pairs.
        values: :func:`~mmcl.methods.mml.blocks.standardise` of the other modality's side of all N pairs ``(N, D)``.
    """

    embeddings: Tensor
    near: Tensor
    values: Tensor

    def select(self, rows: Tensor) -> Read:
        """Return the embeddings named by an int64 index ``(M,)``."""
        return Read(self.embeddings[rows], self.near[rows], self.values)


def partners(rows: ClassRows, others: ClassRows) -> Tensor:
    """Find for each row the nearest row of the other modality and the same class, as features go: its pair.

    Args:
        rows: N of them.
        others: M of them.

    Returns:
        int64 ``(N,)``, rows of ``others``, of equally near ones the first; -1 where the class has none there.
    """
    found = torch.full_like(rows.classes, -1)
    for number in set(rows.classes.tolist()):
        here, there = ((part.classes == number).nonzero().flatten() for part in (rows, others))
        if len(there):
            units = (normalize(part.features[own].float(), dim=1) for part, own in ((rows, here), (others, there)))
            cosines = next(units) @ next(units).T
            found[here] = there[cosines.argmax(dim=1)]
    return found


class PairedRows:
    """One modality of a memory prepared for search, with the other modality as values; rows without a pair are out.

    Args:
        rows: what is searched.
        others: what is read.
        neighbours: pairs that a query reads.
    """

    def __init__(self, rows: ClassRows, others: ClassRows, neighbours: int) -> None:
        found = partners(rows, others)
        paired = found >= 0
        self.neighbours = neighbours
        self.values = standardise(others.features[found[paired]])
        self.index: RowIndex | None = make_index("exact", rows.features[paired]) if bool(paired.any()) else None

    def read(self, queries: Tensor) -> Read:
        """Look up queries ``(B, D)`` of the modality that is searched.

        Raises:
            UserError: there are pairs, but fewer than a query reads.
        """
        if self.index is None:
            near = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
        else:
            near = near_rows(queries, self.index, self.neighbours, "method.neighbours")
        return Read(normalize(queries, dim=1), near, self.values)


class PairMemory:
    """A memory as pairs of images and texts, searched from either side.

    Args:
        content: the memory; without one of the modalities there is no pair.
        neighbours: pairs that a query reads.
        device: where queries will be.
    """

    def __init__(self, content: MemoryContent, neighbours: int, device: torch.device) -> None:
        images, texts = (
            ClassRows(rows.features.float().to(device), rows.classes.to(device))
            for rows in (content.images, content.texts)
        )
        self.images, self.texts = PairedRows(images, texts, neighbours), PairedRows(texts, images, neighbours)


class FusionLayer(nn.Module):
    """A transformer layer over an embedding and what it read, of which the embedding's place is the result.

    At the start values go through as they are, so that the embedding is shifted by what it attends to, and the
    perceptron adds nothing.

    Args:
        dimension: D, length of an embedding.
        generator: draws the other start weights.
    """

    def __init__(self, dimension: int, generator: torch.Generator) -> None:
        super().__init__()
        self.block = CrossAttentionBlock(dimension, generator)
        self.scale = math.sqrt(dimension)
        with torch.no_grad():
            nn.init.eye_(self.block.attn.in_proj_weight[2 * dimension :])
            nn.init.eye_(self.block.attn.out_proj.weight)
            nn.init.zeros_(self.block.mlp.c_proj.weight)
            nn.init.zeros_(self.block.mlp.c_proj.bias)

    def forward(self, read: Read) -> Tensor:
        """Return refined embeddings as unit rows ``(B, D)``; where nothing was read, they stay as they are."""
        if not read.near.shape[1]:
            return read.embeddings
        tokens = self.scale * read.embeddings  # as long as what LayerNorm gives
        items = torch.cat([standardise(tokens)[:, None], embedding(read.near, read.values)], dim=1)
        return normalize(self.block(tokens, items, items), dim=1)


class RecoLearner(nn.Module):
    """The two fusion layers and the loss that trains them.

    Args:
        dimension: D, length of an embedding.
        temperature: factor of the cosines.
        generator: draws the start weights.
    """

    def __init__(self, dimension: int, temperature: float, generator: torch.Generator) -> None:
        super().__init__()
        self.temperature = temperature
        self.image_fusion = FusionLayer(dimension, generator)
        self.text_fusion = FusionLayer(dimension, generator)

    def forward(self, images: Read, texts: Read) -> Tensor:
        """Return the logits ``(B, C)`` of B images for the C texts of classes, both refined."""
        logits: Tensor = self.temperature * self.image_fusion(images) @ self.text_fusion(texts).T
        return logits

    def losses(self, images: Read, texts: Read, labels: Tensor) -> dict[str, Tensor]:
        """Return cross-entropies over the C classes, each a mean over B images: both sides refined, and either alone.

        Args:
            images: B of them.
            texts: one for each class.
            labels: int64 ``(B,)``.
        """
        refined = self.image_fusion(images), self.text_fusion(texts)
        sides = {
            "refined": refined,
            "refined_images": (refined[0], texts.embeddings),
            "refined_texts": (images.embeddings, refined[1]),
        }
        return {name: cross_entropy(self.temperature * left @ right.T, labels) for name, (left, right) in sides.items()}
