"""Train a mini CLIP on real images and texts about their classes, without the classes it is tested on as unseen.

Run: OMP_NUM_THREADS=1 python experiments/mini_clip/train_on_images.py --data DATA --out weights.safetensors
Use: python -m mmcl.run +method=dmn backbone=mini_clip backbone.weights=weights.safetensors

Less than an hour on one core that knows bfloat16; ``real_collections.py`` says what DATA holds. The last epoch that
ended is kept beside the weights: the same command goes on from there.

Held out are every fourth class of CIFAR-100 and of Tiny-ImageNet-100 in sorted order, what is the same thing or a kind
of it in the other collection, and the last three birds of CUB. None of their images and sentences is trained on, and
they add no word to the tokenizer: it knows the words that stand at least twice in sentences about the other classes,
and reads any other word as ``<unk>``. So that ``<unk>`` means something, the words of a class's name are replaced by it
in every second sentence of training.

What it prints with these defaults: top-1 on test images, each among the classes of its line.

    images of                            chance   zero-shot   nearest class mean
    CIFAR-100           71 seen          1.4 %    39.4 %      37.4 %
                        29 held out      3.4 %    20.1 %      43.0 %
    Tiny-ImageNet-100   71 seen          1.4 %    26.2 %      27.7 %
                        29 held out      3.4 %     9.7 %      31.0 %
    CUB-10               7 seen         14.3 %    28.3 %      41.6 %
                         3 held out     33.3 %    35.1 %      66.2 %

The class means are those of all training images, for held-out classes too. Names that are no words of the training tell
the text tower nothing: what is known of held-out classes comes from words that they share with the others.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from open_clip import CLIP
from real_collections import Collected, Images, held_out_classes, kin_matrix, read_all
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from train import contrastive_loss, optimizer_of, random_crops

from mmcl.backbones.dual_encoder import DualEncoder
from mmcl.backbones.mini_clip import (
    MEAN,
    STD,
    MiniClip,
    MiniClipConfig,
    WordTokenizer,
    build_model,
    split_words,
    weights_metadata,
)
from mmcl.errors import UserError
from mmcl.methods.text_classifier import text_classifier
from mmcl.pixels import normalise
from mmcl.randomness import key, permutation, uniforms
from mmcl.whole_files import write_whole

CONTEXT_LENGTH = 64
UNKNOWN = WordTokenizer(()).words.index("<unk>")
LEAST = 2  # occurrences that make a word known
REPEATS = {"CIFAR-100": 1, "Tiny-ImageNet-100": 2, "CUB-10": 8}  # how often an epoch shows each image


class Corpus(NamedTuple):
    """Sentences of all C classes, one class after another.

    Attributes:
        tokens: int64 ``(P, L)``.
        naming: which tokens are words of the class's name, bool ``(P, L)``.
        starts: first row of each class, int64 ``(C,)``.
        counts: rows of each class, int64 ``(C,)``; 0 for a class that is held out.
    """

    tokens: Tensor
    naming: Tensor
    starts: Tensor
    counts: Tensor


class Training(NamedTuple):
    """What the training sees; classes are numbered over all collections.

    Attributes:
        images: of the classes that are not held out.
        corpus: sentences about them.
        same: which classes' sentences are true of which classes' images, bool ``(C, C)``.
        words: the tokenizer's.
    """

    images: Images
    corpus: Corpus
    same: Tensor
    words: tuple[str, ...]


def common_words(sentences: Iterable[str]) -> tuple[str, ...]:
    """Return the sorted words that stand at least ``LEAST`` times in the sentences."""
    counts = Counter(word for sentence in sentences for word in split_words(sentence))
    return tuple(sorted(word for word, count in counts.items() if count >= LEAST))


def corpus_of(sentences: Sequence[Sequence[str]], names: Sequence[str], words: Sequence[str]) -> Corpus:
    """Tokenise the sentences of classes; those of too many words keep their beginning."""
    tokenizer = WordTokenizer(words)
    known = set(words)
    tokens = tokenizer([text for texts in sentences for text in texts], CONTEXT_LENGTH)
    counts = torch.tensor([len(texts) for texts in sentences])
    naming = []
    for name, part in zip(names, tokens.split(counts.tolist()), strict=True):
        spelt = [form for word in split_words(name) for form in (word, f"{word}s") if form in known]
        ids = tokenizer.words.index
        naming.append(torch.isin(part, torch.tensor([ids(form) for form in spelt], dtype=torch.int64)))
    return Corpus(tokens, torch.cat(naming), counts.cumsum(0) - counts, counts)


def spoken(corpus: Corpus, classes: Tensor, draws: Tensor) -> Tensor:
    """Pick a sentence for each class ``(K,)`` and hide what names it in half of them.

    Args:
        corpus: the sentences.
        classes: int64 ``(K,)``.
        draws: numbers in [0, 1) ``(K, 2)``.

    Returns:
        Tokens ``(K, L)``.
    """
    rows = corpus.starts[classes] + (draws[:, 0] * corpus.counts[classes]).long()
    hidden = corpus.naming[rows] & (draws[:, 1:] < 0.5)
    return corpus.tokens[rows].masked_fill(hidden, UNKNOWN)


def gather(collections: Sequence[Collected], held_out: set[str]) -> Training:
    """Collect images and texts of the classes that are not held out."""
    ids = [class_id for collected in collections for class_id in collected.ids]
    names = [name for collected in collections for name in collected.names]
    texts = [
        [] if class_id in held_out else [*sentences, *captions]
        for collected in collections
        for class_id, sentences, captions in zip(collected.ids, collected.sentences, collected.captions, strict=True)
    ]
    words = common_words(text for part in texts for text in part)
    pixels, labels, first = [], [], 0
    for collected in collections:
        seen = torch.tensor([class_id not in held_out for class_id in collected.ids])
        rows = seen[collected.train.labels].nonzero().flatten().repeat(REPEATS[collected.name])
        pixels.append(collected.train.pixels[rows])
        labels.append(collected.train.labels[rows] + first)
        first += len(collected.ids)
    images = Images(torch.cat(pixels), torch.cat(labels))
    return Training(images, corpus_of(texts, names, words), kin_matrix(ids), words)


def train(model: CLIP, training: Training, options: argparse.Namespace) -> None:
    """Train the model, from the state that is kept if there is one."""
    optimizer = optimizer_of(model, options.lr)
    steps = options.epochs * (len(training.images.labels) // options.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, steps, pct_start=0.1, cycle_momentum=False)
    parts = (model, optimizer, schedule)
    state = options.out.with_suffix(".state")
    asked = {name: value for name, value in vars(options).items() if name not in ("data", "out", "threads")}
    done, seconds = restore(state, asked, parts)
    for epoch in range(done, options.epochs):
        begun = time.perf_counter()
        loss, right = train_epoch(model, optimizer, schedule, training, options, epoch)
        seconds += time.perf_counter() - begun
        kept = {"asked": asked, "done": epoch + 1, "seconds": seconds, "parts": [part.state_dict() for part in parts]}
        write_whole(state, partial(torch.save, kept))
        said = f"epoch {epoch + 1}/{options.epochs}: loss {loss:.3f}, {right:.1%} right, {seconds / 60:.1f} min"
        print(said, flush=True)


def train_epoch(
    model: CLIP,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    training: Training,
    options: argparse.Namespace,
    epoch: int,
) -> tuple[float, float]:
    """Return the mean loss, and the share of images whose likeliest sentence of the batch is true."""
    images, size = training.images, options.batch_size
    order = permutation(len(images.labels), "images clip", options.seed, epoch)
    figures = []
    for step, rows in enumerate(order[: len(order) // size * size].split(size)):
        draw_key = key("images clip", options.seed, epoch, step)
        pixels = random_crops(images.pixels[rows], uniforms(draw_key, rows, 6))
        labels = images.labels[rows]
        logits = batch_logits(model, normalise(pixels, MEAN, STD), labels, training.corpus, draw_key)
        true = training.same[labels][:, labels]
        loss = contrastive_loss(logits, true)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        right = true.gather(1, logits.argmax(1, keepdim=True)).float().mean()
        figures.append(torch.stack([loss.detach(), right]))
    loss_mean, right_mean = torch.stack(figures).mean(0).tolist()
    return loss_mean, right_mean


def restore(state: Path, asked: dict[str, Any], parts: Sequence[Any]) -> tuple[int, float]:
    """Load what was kept; returns the epochs and the seconds that it took."""
    if not state.is_file():
        return 0, 0.0
    kept = torch.load(state, weights_only=True)
    if kept["asked"] != asked:
        raise UserError(f"{state} is of a training with {kept['asked']}: delete it, or type another --out")
    for part, saved in zip(parts, kept["parts"], strict=True):
        part.load_state_dict(saved)
    return kept["done"], kept["seconds"]


def batch_logits(model: CLIP, images: Tensor, labels: Tensor, corpus: Corpus, draw_key: int) -> Tensor:
    """Return scaled cosines of images ``(B, 3, S, S)`` and a sentence about each one's class, ``(B, B)``.

    Images of one class share the sentence.
    """
    classes, place = labels.unique(return_inverse=True)
    tokens = spoken(corpus, classes, uniforms(key("sentence", draw_key), classes, 2))
    # On a CPU the fused attention kernel is slower in bfloat16 than plain products.
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        image_features = model.encode_image(images.contiguous(memory_format=torch.channels_last), normalize=True)
        text_features = model.encode_text(tokens, normalize=True)
    scale = model.logit_scale.exp().clamp(max=100)
    return scale * image_features.float() @ text_features.float()[place].T


def save(model: CLIP, architecture: dict[str, Any], words: tuple[str, ...], out: Path) -> None:
    """Write the weights as float16; a file that is there is whole."""
    weights = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    write_whole(out, lambda part: save_file(weights, part, weights_metadata(architecture, words)))
    numbers = sum(tensor.numel() for tensor in weights.values())
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB, {numbers} numbers, {len(words)} words")


@torch.no_grad()
def report(out: Path, collections: Sequence[Collected], held_out: set[str]) -> None:
    """Print top-1 on test images of what was written: zero-shot, and of the nearest mean of training features."""
    encoder = MiniClip(MiniClipConfig(_target_="", name="mini_clip", weights=str(out))).load()
    for collected in collections:
        train_features, test_features = (encoded(encoder, part.pixels) for part in (collected.train, collected.test))
        numbers: dict[str, list[int]] = {"seen": [], "held-out": []}
        for number, class_id in enumerate(collected.ids):
            numbers["held-out" if class_id in held_out else "seen"].append(number)
        for kind, classes in numbers.items():
            rows, labels = among(classes, collected.train.labels)
            means = text_classifier(train_features[rows], labels, len(classes))
            texts = zero_shot_classifier(encoder, [collected.sentences[number] for number in classes])
            rows, labels = among(classes, collected.test.labels)
            zero_shot, nearest = (
                float(((test_features[rows] @ classifier.T).argmax(1) == labels).float().mean())
                for classifier in (texts, means)
            )
            print(
                f"{collected.name}, {len(rows)} images of {len(classes)} {kind} classes among these (chance "
                f"{1 / len(classes):.1%}): zero-shot {zero_shot:.1%}, nearest class mean {nearest:.1%}",
                flush=True,
            )


def zero_shot_classifier(encoder: DualEncoder, sentences: Sequence[Sequence[str]]) -> Tensor:
    """Return unit rows ``(C, D)`` from the sentences of C classes."""
    tokens = encoder.tokenize_beginnings([text for texts in sentences for text in texts])
    owners = torch.arange(len(sentences)).repeat_interleave(torch.tensor([len(texts) for texts in sentences]))
    return text_classifier(encoder.encode_tokens(tokens), owners, len(sentences))


def encoded(encoder: DualEncoder, pixels: Tensor) -> Tensor:
    """Return unit features ``(N, D)`` of uint8 images."""
    parts = [encoder.encode_images(normalise(part, MEAN, STD)) for part in pixels.split(256)]
    return F.normalize(torch.cat(parts), dim=1)


def among(classes: Sequence[int], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows whose label is one of the sorted classes, and their labels' positions in it."""
    wanted = torch.tensor(classes)
    rows = torch.isin(labels, wanted).nonzero().flatten()
    return rows, torch.searchsorted(wanted, labels[rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data, see above")
    parser.add_argument("--out", type=Path, required=True, help="weights file; its state is kept beside it")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--image-size", type=int, default=64, help="pixels; a multiple of 32")
    parser.add_argument("--width", type=int, default=24, help="channels of the image tower's stem, a multiple of 4")
    parser.add_argument("--text-width", type=int, default=64, help="channels of the text tower")
    parser.add_argument("--embedding", type=int, default=128, help="length of a feature")
    parser.add_argument("--seed", type=int, default=0, help="keys crops, sentences, initial weights and order")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    architecture = {
        "embed_dim": options.embedding,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": options.width, "image_size": options.image_size},
        "text_cfg": {"layers": 2, "width": options.text_width, "heads": 2, "context_length": CONTEXT_LENGTH},
    }
    try:
        collections = read_all(options.data, options.image_size)
        held_out = held_out_classes(collections)
        training = gather(collections, held_out)
        counts = f"{len(training.images.labels)} images an epoch, {len(training.words)} words"
        print(f"{counts}; held out: {', '.join(sorted(held_out))}", flush=True)
        torch.manual_seed(key("images clip", options.seed))
        model = build_model(architecture, len(WordTokenizer(training.words))).to(memory_format=torch.channels_last)
        train(model, training, options)
        save(model, architecture, training.words, options.out)
        report(options.out, collections, held_out)
    except (UserError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
