"""Golden checks of MML's data protocol: texts, tokens, queries and shots, subsets of classes, web images."""

from __future__ import annotations

from pathlib import Path

import open_clip
import torch

from mmcl.benchmarks.memory_splits import (
    HELD_OUT_EVERY,
    class_halves,
    class_targets,
    first_rows,
    query_shot_rows,
    shuffled_classes,
    web_rows,
)
from mmcl.benchmarks.prompts import full_templates
from mmcl.texts.labels import parse_labels
from mmcl.texts.tokens import cut_tokens
from mmcl.texts.wiki import article_text, decode_article, parse_sections, prompt_text, sentence_rows, split_sentences
from tests.parity import Golden, close, parity


@parity("templates")
def check_templates(golden: Golden) -> None:
    assert list(full_templates()) == golden["templates"].tolist()


@parity("text")
def check_text(golden: Golden) -> None:
    class_ids, targets = golden["class_ids"].tolist(), golden["targets"].tolist()
    entries = parse_labels(str(golden["labels_txt"]), class_ids, "official", "labels.txt")
    assert [entry.class_id for entry in entries] == class_ids
    assert [entry.article for entry in entries] == golden["wiki_ids"].tolist()
    assert [entry.name for entry in entries] == golden["names"].tolist() == golden["t2l_name"].tolist()
    assert targets == golden["t2l_target"].tolist()
    texts = []
    for position, entry in enumerate(entries):
        sections = parse_sections(decode_article(golden[f"desc_bytes_{position}"].tobytes(), "desc"))
        assert list(sections) == golden[f"sec_keys_{position}"].tolist()
        assert list(sections.values()) == golden[f"sec_vals_{position}"].tolist()
        article, prompts = article_text(sections), prompt_text(entry.name, full_templates())
        assert article == str(golden[f"wiki_text_{position}"])
        assert prompts == str(golden[f"naive_text_{position}"])
        texts.append(prompts + article)
        assert split_sentences(texts[-1]) == golden[f"sentences_{position}"].tolist()
    sentences, positions = sentence_rows(texts, range(len(texts)), None)
    close(positions, golden["token_label"], 0)
    _, labels = sentence_rows(texts, targets, None)
    close(labels, golden["targets"][golden["token_label"]], 0)
    tokens = cut_tokens(open_clip.SimpleTokenizer(), sentences, golden["tokens"].shape[1]).tokens
    close(tokens, golden["tokens"], 0)


@parity("split")
def check_split(golden: Golden) -> None:
    targets = class_targets(Path("no_such_labels.json"), golden["class_dirs"].tolist()[::-1])
    assert list(targets) == golden["label_keys"].tolist()
    close(list(targets.values()), golden["label_vals"], 0)
    visited = golden["class_order"].tolist()
    assert sorted(targets, key=targets.__getitem__) == visited
    files = [f"train/{name}/{file}" for i, name in enumerate(visited) for file in golden[f"files_{i}"]]
    labels = torch.tensor([targets[name] for i, name in enumerate(visited) for _ in golden[f"files_{i}"]])
    orders = [torch.from_numpy(golden[f"perm_{i}"]) for i in range(len(visited))]
    shots = int(golden["nshot"])
    assert not golden["label_given"]
    rows = query_shot_rows(labels, orders, max(int(golden["nsamples"]), 0), shots)
    assert [files[row] for row in rows.queries] == golden["query_files"].tolist()
    close(labels[rows.queries], golden["query_targets"], 0)
    if shots:
        assert [files[row] for row in rows.shots] == golden["shot_files"].tolist()
        close(labels[rows.shots], golden["shot_targets"], 0)
    assert len(rows.shots) == shots * len(visited)


@parity("subset")
def check_subset(golden: Golden) -> None:
    seed, held_out = int(golden["seed"]), golden["is_val"].astype(bool)
    if "perm" in golden:
        class_ids = [f"n{number:04d}" for number in range(int(golden["n"]))]
        shuffled = [class_ids[number] for number in golden["perm"]]
    else:
        class_ids, shuffled = golden["class_ids"].tolist(), golden["shuffled"].tolist()
    assert shuffled_classes(class_ids[::-1], seed) == shuffled
    assert [position % HELD_OUT_EVERY == 0 for position in range(len(shuffled))] == held_out.tolist()
    halves = class_halves(class_ids, seed)
    expected = zip(shuffled, held_out, strict=True)
    assert set(halves.held_out) == {class_id for class_id, held in expected if held}
    if "train_classes" in golden:
        assert list(halves.train) == golden["train_classes"].tolist()
        assert list(halves.held_out) == golden["val_classes"].tolist()
        listed = torch.arange(len(halves.train)).repeat_interleave(int(golden["num_samples"]) + 2)
        linked = listed[first_rows(listed, int(golden["num_samples"]))]
        close(torch.bincount(linked), golden["n_train_files"], 0)


@parity("webmem")
def check_webmem(golden: Golden) -> None:
    synsets = [line.split()[0] for line in str(golden["synsets_txt"]).splitlines()]
    targets = dict(zip(golden["class_ids"].tolist(), golden["targets"].tolist(), strict=True))
    lines = str(golden["filelist_txt"]).splitlines()
    paths, labels = web_rows(lines, synsets, targets, int(golden["len_memory"]), "list")
    assert list(paths) == golden["paths"].tolist()
    close(labels, golden["labels"], 0)
