"""Own classes for a finished run: answered as the run itself answers, replaced whole or not at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from mmcl import cli
from mmcl.benchmarks.memory_sets import ClassSet
from mmcl.benchmarks.own_classes import read_own_classes
from mmcl.config.components import build
from mmcl.config.identity import identity
from mmcl.engine import own_memory
from mmcl.engine.finished_run import FinishedRun
from mmcl.engine.own_memory import CURRENT, ask, read_memory
from mmcl.engine.state import StateFile
from mmcl.protocol import Samples
from tests.engine.tiny import read, run_here

SMALL = (
    "+method=mml",
    "trainer=cpu",
    "benchmark.evaluations=[unseen]",
    "benchmark.validation_classes=41",
    "benchmark.training_queries=2",
    "benchmark.queries=2",
    "benchmark.images=2",
    "benchmark.shots=0",
    "benchmark.max_sentences=2",
    "method.image_neighbours=3",
    "method.text_neighbours=4",
    "method.schedule.epochs=2",
    "method.schedule.lr=1e-4",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a finished run; no test may write there."""
    folder = tmp_path_factory.mktemp("trained")
    return run_here([*SMALL, f"paths.runs={folder / 'runs'}", f"paths.cache={folder / 'cache'}"]).parent


@pytest.fixture(scope="module")
def unseen(trained: Path) -> ClassSet:
    config = FinishedRun(trained).config
    known: ClassSet = build(config.benchmark).read_sets().unseen
    return known


@pytest.fixture(scope="module")
def own(unseen: ClassSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the memory of the unseen classes as files, and the queries."""
    folder = tmp_path_factory.mktemp("own")
    for part in ("images", "queries"):
        put_images(folder / part, getattr(unseen, part), unseen.class_names)
    put_texts(folder / "text", unseen, range(len(unseen.class_names)))
    return folder


def put_images(folder: Path, samples: Samples, names: tuple[str, ...]) -> None:
    assert isinstance(samples.images, torch.Tensor)
    for row, (pixels, label) in enumerate(zip(samples.images, samples.labels.tolist(), strict=True)):
        (folder / names[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / names[label] / f"{row:03d}.png")


def put_texts(folder: Path, known: ClassSet, labels: Any) -> None:
    folder.mkdir()
    for label in labels:
        rows = (known.sentences.classes == label).nonzero().flatten().tolist()[:2]
        (folder / f"{known.class_names[label]}.txt").write_text("\n".join(known.sentences.texts[row] for row in rows))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the run for one test."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def say(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(["memory", *map(str, arguments)])
    captured = capsys.readouterr()
    assert (ended.value.code or 0) == code, captured.err
    return captured.err if code else captured.out


def test_the_same_classes_get_the_same_answers_as_in_the_run(run: Path, own: Path) -> None:
    finished = FinishedRun(run)
    queries = sorted((own / "queries").rglob("*.png"))
    built = own_memory.build_memory(
        finished, read_own_classes(own / "images", own / "text", ()), [own], run / "m.safetensors"
    )
    answers = [entry["answers"][0][0] for entry in ask(finished, built, queries)]
    right = sum(answer == path.parent.name for answer, path in zip(answers, queries, strict=True))
    accuracy = read(run / "result.json")["readouts"]["mml"]["last_accuracy"]
    assert 0.1 < accuracy < 1
    assert right / len(queries) == pytest.approx(accuracy)


def test_the_run_shows_what_its_queries_looked_at(run: Path, own: Path) -> None:
    """Other rows, but the same neighbours: own classes are sorted by name."""
    written = json.loads((run / "retrieved_000_unseen.json").read_text())["queries"]
    finished = FinishedRun(run)
    built = own_memory.build_memory(finished, read_own_classes(own / "images", own / "text", ()), [own], run / "m")
    assert len(written) == 6
    for entry in written:
        place = int(entry["name"].split()[1])
        (again,) = ask(finished, built, [next((own / "queries").rglob(f"{place:03d}.png"))])
        for kind in ("images", "sentences"):
            ours, theirs = ([(item["class"], item["rank"]) for item in side[kind]] for side in (entry, again))
            assert ours == theirs
            ours, theirs = ([item["weight"] for item in side[kind]] for side in (entry, again))
            assert ours == pytest.approx(theirs, abs=1e-5)
        assert entry["answers"][0] == pytest.approx(again["answers"][0], abs=1e-3)
        assert (own / "queries" / entry["truth"] / f"{place:03d}.png").is_file()


def test_build_replace_inspect(run: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "has no memory" in say(capsys, "inspect", run, code=2)
    built = say(capsys, "build", run / "result.json", "--images", own / "images", "--text", own / "text")
    file = run / "memories" / "images.safetensors"
    assert f"mmcl memory replace {run / 'result.json'} {file}" in built
    assert "40 images, 40 sentences" in built
    assert not (run / CURRENT).exists()
    assert "20 classes, 40 images, 40 sentences" in say(capsys, "replace", run, file)
    assert (run / CURRENT).read_bytes() == file.read_bytes()
    query = next((own / "queries").rglob("*.png"))
    page = tmp_path / "page.html"
    said = say(capsys, "inspect", run, "--query", query, "--html", page)
    assert str(query) in said
    assert "rank" in said
    assert query.name in page.read_text()
    assert page.read_text().count("<img") == 1 + 3
    assert not list(tmp_path.rglob("*.part"))


def test_classes_added_to_a_memory_are_those_built_at_once(
    run: Path, own: Path, unseen: ClassSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(unseen.class_names)
    parts = [set(names[:15]), set(names[15:])]
    for number, part in enumerate(parts):
        put_texts(tmp_path / f"text{number}", unseen, [unseen.class_names.index(name) for name in part])
    first, both, once = (tmp_path / f"{name}.safetensors" for name in ("first", "both", "once"))
    options = ("build", run, "--out")
    assert "without" not in say(capsys, *options, first, "--text", tmp_path / "text0")
    before = first.read_bytes()
    say(capsys, *options, both, "--text", tmp_path / "text1", "--add-to", first)
    say(capsys, *options, once, "--text", own / "text")
    finished = FinishedRun(run)
    added, rebuilt = read_memory(finished, both), read_memory(finished, once)
    assert added.memory.fingerprint() == rebuilt.memory.fingerprint()
    assert added.source.classes == rebuilt.source.classes
    assert added.source.sentences == rebuilt.source.sentences
    assert first.read_bytes() == before
    twice = say(capsys, *options, both, "--text", tmp_path / "text0", "--add-to", first, code=2)
    assert names[0] in twice


def test_a_class_without_images_is_answered_by_its_texts(
    run: Path, own: Path, unseen: ClassSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = Path(shutil.copytree(own / "images", tmp_path / "images"))
    shutil.rmtree(images / unseen.class_names[0])
    said = say(capsys, "build", run, "--images", images, "--text", own / "text", "--out", tmp_path / "m.safetensors")
    assert f"their texts stand for them: {unseen.class_names[0]}" in said
    finished = FinishedRun(run)
    made = read_memory(finished, tmp_path / "m.safetensors")
    place = made.source.classes.index(unseen.class_names[0])
    assert torch.equal(made.memory.prototypes.images[place], made.memory.prototypes.texts[place])
    texts = own_memory.build_memory(
        finished, read_own_classes(None, own / "text", ()), [own], tmp_path / "t.safetensors"
    )
    (entry,) = ask(finished, texts, [next((own / "queries").rglob("*.png"))])
    assert entry["images"] == []
    assert len(entry["sentences"]) == 4


def _other_encoder(run: Path, file: Path) -> None:
    own = read_memory(FinishedRun(run), file)
    own.memory.encoder = "another"
    own.memory.save(file, asdict(own.source))


def _too_few_rows(run: Path, file: Path) -> None:
    own = read_memory(FinishedRun(run), file)
    own.memory.save(file, {**asdict(own.source), "image_neighbours": 41})


def _other_names(run: Path, file: Path) -> None:
    own = read_memory(FinishedRun(run), file)
    own.memory.save(file, {**asdict(own.source), "sentences": ["one"]})


def _foreign(run: Path, file: Path) -> None:
    read_memory(FinishedRun(run), file).memory.save(file, {"data": "elsewhere"})


def _empty(run: Path, file: Path) -> None:
    from safetensors.torch import save_file

    memory = FinishedRun(run).empty_memory()
    recipe = {**memory._recipe(), "class_count": 0, "fingerprint": "", "source": {}}
    rows = {"features": torch.empty(0, 64), "classes": torch.empty(0, dtype=torch.int64)}
    tensors = {f"{part}.{name}": value.clone() for part in ("images", "texts") for name, value in rows.items()}
    save_file(tensors, file, metadata={"recipe": json.dumps(recipe)})


REFUSED = {
    "another encoder": (_other_encoder, "encoder=another"),
    "k above the rows": (_too_few_rows, "--image-neighbours 40"),
    "other rows": (_other_names, "names are of other rows"),
    "not built here": (_foreign, "was not made by: mmcl memory build"),
    "empty": (_empty, "at least one class"),
    "cut off": (lambda run, file: file.write_bytes(file.read_bytes()[:-9]), "is no memory that can be read"),
    "gone": (lambda run, file: file.unlink(), "there is no memory"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_replace_leaves_the_memory_in_place(
    kind: str, run: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, words = REFUSED[kind]
    file = tmp_path / "new.safetensors"
    own_memory.build_memory(FinishedRun(run), read_own_classes(own / "images", own / "text", ()), [own], file)
    say(capsys, "replace", run, file)
    before = (run / CURRENT).read_bytes()
    spoil(run, file)
    assert words in say(capsys, "replace", run, file, code=2)
    assert (run / CURRENT).read_bytes() == before
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_a_replacement_that_breaks_off_leaves_the_memory_in_place(
    run: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = FinishedRun(run)
    old = own_memory.build_memory(
        finished, read_own_classes(None, own / "text", ()), [own], tmp_path / "old.safetensors"
    )
    new = own_memory.build_memory(
        finished, read_own_classes(own / "images", own / "text", ()), [own], tmp_path / "new.safetensors"
    )
    own_memory.replace_memory(finished, old.path)
    before = (run / CURRENT).read_bytes()

    def break_off(path: Path, content: bytes) -> None:
        path.write_bytes(content[: len(content) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr("mmcl.memory.class_memory._write_bytes", break_off)
    with pytest.raises(KeyboardInterrupt):
        own_memory.replace_memory(finished, new.path)
    assert (run / CURRENT).read_bytes() == before
    assert not list(run.glob(".*part"))


def test_bad_input_to_build_and_inspect_is_named(
    run: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = Path(shutil.copytree(own / "images", tmp_path / "images"))
    broken = next(images.rglob("*.png"))
    broken.write_bytes(b"no image")
    out = tmp_path / "m.safetensors"
    build = ("build", run, "--text", own / "text", "--out", out)
    assert broken.name in say(capsys, *build, "--images", images, code=2)
    assert "--text-neighbours 40" in say(capsys, *build, "--text-neighbours", 41, code=2)
    assert "a query is to see 0" in say(capsys, *build, "--text-neighbours", 0, code=2)
    assert not out.exists()
    say(capsys, *build, "--text-neighbours", 40)
    assert "cannot read the image" in say(capsys, "inspect", run, "--memory", out, "--query", broken, code=2)


def test_runs_that_cannot_have_a_memory_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refusal() -> str:
        return say(capsys, "inspect", run, code=2)

    owner, result = (json.loads((run / name).read_text()) for name in ("identity.json", "result.json"))

    def change(**config: Any) -> None:
        (run / "identity.json").write_text(json.dumps({**owner, "config": {**owner["config"], **config}}))

    change(method={**owner["config"]["method"], "_target_": "mmcl.methods.clip_zeroshot.ClipZeroshot"})
    assert "expected one of method=mml" in refusal()
    method = {key: value for key, value in owner["config"]["method"].items() if key != "temperature"}
    older = {**owner["config"], "method": method}
    content = {"identity": identity(OmegaConf.create(older)), "config": older}
    (run / "identity.json").write_text(json.dumps(content))
    assert "other keys" in refusal()
    (run / "identity.json").write_text(json.dumps({**content, "config": None}))
    assert "has another form" in refusal()
    change(seed=7)
    assert f"has the identity {owner['identity']}" in refusal()
    benchmark = {key: value for key, value in owner["config"]["benchmark"].items() if key != "features_precision"}
    change(benchmark=benchmark)
    assert "learned from features of a file" in refusal()
    change()
    (run / "result.json").write_text(json.dumps({**result, "status": "running"}))
    assert "has not finished" in refusal()
    (run / "result.json").write_text("{")
    assert "cannot read" in refusal()
    (run / "result.json").unlink()
    assert "no directory of a run" in refusal()


def test_a_run_that_lost_its_weights_says_so(
    run: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.safetensors"
    say(capsys, "build", run, "--text", own / "text", "--out", out)
    for path in StateFile(run / "state").versions.folder.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    query = next((own / "queries").rglob("*.png"))
    assert "no learned weights" in say(capsys, "inspect", run, "--memory", out, "--query", query, code=2)
