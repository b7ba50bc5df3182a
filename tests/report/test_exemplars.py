"""Exemplars: records come back as written, their numbers tell near from far, and pictures are drawn of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmcl.cli import main
from mmcl.commands.exemplars import WRITERS
from mmcl.report.exemplar_figures import amplification, drift_histograms, exemplar_map, image_grid
from mmcl.report.exemplars import CHOICES, choices, figures_of, places, read_record, record_files
from mmcl.report.page import write_report
from mmcl.results.store import find_results
from tests.report.made import content, write
from tests.report.made_exemplars import KEPT, PER_CLASS, SIDE, put, record
from tests.report.test_page import read

DRAWN = ("exemplars.png", "exemplars_drift.png", "exemplars_tsne.png")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["exemplars", *arguments])
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out + captured.err  # type: ignore[return-value]


def damaged(path: Path, **changes: Any) -> Path:
    with np.load(path) as saved:
        values = {name: saved[name] for name in saved.files}
    values.update(changes)
    np.savez(path, **{name: value for name, value in values.items() if value is not None})
    return path


def drawn(picture: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(picture))
    image.load()
    return image


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    made = record()
    found = read_record(put(tmp_path, made, task=4))
    assert (found.task, found.mode, found.class_names) == (4, "nme", tuple("abcde"))
    assert found.shown == [0, 1, 2]
    np.testing.assert_array_equal(found.images_after, made.images_after.permute(0, 2, 3, 1).numpy())
    np.testing.assert_array_equal(found.picks["herding"], made.picks_herding.numpy())
    np.testing.assert_allclose(found.drift, made.drift.numpy(), rtol=1e-6)
    unit = torch.nn.functional.normalize(made.features).numpy()
    np.testing.assert_allclose(found.features, unit, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found.features, axis=1), 1, rtol=1e-12)


def test_grey_values_that_are_no_whole_numbers_are_rounded_and_never_wrap(tmp_path: Path) -> None:
    made = record()
    grey = made.images_before.float() + 0.6
    grey[0, 0, 0, 0], grey[0, 1, 0, 0] = -3.0, 300.0
    found = read_record(put(tmp_path, record(images_after=grey)))
    expected = (made.images_before + 1).permute(0, 2, 3, 1).numpy()
    expected[0, 0, 0, :2] = 0, 255
    np.testing.assert_array_equal(found.images_after, expected)


def test_records_come_in_the_order_of_the_tasks(tmp_path: Path) -> None:
    for task in (10, 2, 0):
        put(tmp_path, record(), task)
    (tmp_path / ".exemplars_003.npz.part").write_bytes(b"half")
    (tmp_path / "exemplars_mine.npz").write_bytes(b"other")
    assert [path.name for path in record_files(tmp_path)] == [f"exemplars_{task:03d}.npz" for task in (0, 2, 10)]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"schema": np.array(2)}, "schema"),
        ({"features": np.ones((7, 8))}, "features"),
        ({"features": np.full((3 * PER_CLASS, 8), np.nan)}, "features"),
        ({"exemplar_features": None}, "exemplar_features"),
        ({"labels": np.arange(3 * KEPT)}, "labels"),
        ({"picks_random": np.array([3 * PER_CLASS])}, "picks_random"),
        ({"images_after": np.zeros((3 * KEPT, 3, SIDE, SIDE))}, "images"),
        ({"drift": np.zeros(1)}, "drift"),
        ({"mode": np.array({}, dtype=object)}, "pickle"),
    ],
)
def test_what_is_of_another_form_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], name: str
) -> None:
    path = damaged(put(tmp_path, record()), **changes)
    code, said = run(capsys, str(tmp_path))
    assert code == 2
    assert str(path) in said
    assert name in said
    assert not (tmp_path / "exemplars.png").exists()


def test_exemplars_between_classes_have_smaller_numbers(tmp_path: Path) -> None:
    numbers = {}
    for task, shift in enumerate((0.0, 0.3, 0.5)):
        made = record(shift=shift)
        (kept,) = (choice for choice in choices(read_record(put(tmp_path, made, task))) if choice.name == "kept")
        assert kept.silhouette is not None
        assert kept.margin is not None
        numbers[shift] = np.array([kept.silhouette, kept.margin])
    assert (numbers[0.0] > numbers[0.3]).all()
    assert (numbers[0.3] > numbers[0.5]).all()


def test_the_margin_is_that_to_the_second_nearest_mean_of_all_seen_classes(tmp_path: Path) -> None:
    axes = torch.eye(8)
    features = axes[torch.arange(2).repeat_interleave(PER_CLASS)]
    exemplars = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0], [0.0, 0.6, 0.8, 0, 0, 0, 0, 0]]).repeat_interleave(KEPT, 0)
    made = record(shown=2, features=features, exemplar_features=exemplars, class_means=axes[2:3])
    margins = {choice.name: choice.margin for choice in choices(read_record(put(tmp_path, made)))}
    assert margins == pytest.approx({"random": 1.0, "herding": 1.0, "kept": (1.0 + 0.2) / 2}, abs=1e-3)


def test_no_point_is_drawn_twice(tmp_path: Path) -> None:
    found = read_record(put(tmp_path, record()))
    for choice in choices(found):
        assert len(choice.points) == 3 * (PER_CLASS - 2 * KEPT)
        for exemplar in choice.exemplars:
            assert not (choice.points == exemplar).all(axis=1).any()


def test_one_class_alone_has_no_numbers_and_still_a_picture(tmp_path: Path) -> None:
    found = read_record(put(tmp_path, record(shown=1, others=0)))
    chosen = choices(found)
    assert [(choice.silhouette, choice.margin) for choice in chosen] == [(None, None)] * 3
    assert drawn(exemplar_map([found], [chosen])).width > 500


def test_a_layout_is_the_same_each_time(tmp_path: Path) -> None:
    choice = choices(read_record(put(tmp_path, record())))[0]
    first, second = places(choice), places(choice)
    assert [len(part) for part in first] == [len(choice.points), len(choice.exemplars), len(choice.crosses)]
    for before, after in zip(first, second, strict=True):
        np.testing.assert_array_equal(before, after)


def test_features_that_are_all_alike_are_laid_out(tmp_path: Path) -> None:
    made = record(features=torch.ones(3 * PER_CLASS, 8), exemplar_features=torch.ones(3 * KEPT, 8), others=0)
    points, _, _ = places(choices(read_record(put(tmp_path, made)))[2])
    assert np.isfinite(points).all()


@pytest.mark.parametrize(("change", "factor"), [(0, 100), (1, 100), (12, 10), (50, 2), (90, 1)])
def test_differences_are_amplified_as_far_as_grey_values_reach(tmp_path: Path, change: int, factor: int) -> None:
    before = torch.full((3 * KEPT, 3, SIDE, SIDE), 100, dtype=torch.uint8)
    found = read_record(put(tmp_path, record(images_before=before, images_after=before + change)))
    assert amplification([found]) == (factor if change else 1)


def test_the_grid_shows_before_after_and_difference(tmp_path: Path) -> None:
    before = torch.zeros(3 * KEPT, 3, SIDE, SIDE, dtype=torch.uint8)
    before[:, 0] = 200
    after = before.clone()
    after[:, 1] = 60
    image = drawn(image_grid([read_record(put(tmp_path, record(images_before=before, images_after=after)))]))
    colours = {colour for _, colour in image.convert("RGB").getcolors(2**24) or []}
    assert {(200, 0, 0), (200, 60, 0), (128, 248, 128)} <= colours


def test_classes_may_have_unequal_counts_and_exemplars_may_stand_still(tmp_path: Path) -> None:
    made = record()
    rows = torch.tensor([0, 4, 5, 6, 7, 8])
    names = ("images_before", "labels", "chosen_in", "exemplar_features", "drift_labels")
    fewer = {name: getattr(made, name)[rows] for name in names}
    still = {"images_after": fewer["images_before"], "drift": torch.zeros(len(rows))}
    found = read_record(put(tmp_path, record(**fewer, **still, picks_random=torch.tensor([], dtype=torch.int64))))
    chosen = choices(found)
    assert [choice.name for choice in chosen] == ["herding", "kept"]
    for picture in (image_grid([found]), drift_histograms([found]), exemplar_map([found], [chosen])):
        assert drawn(picture).width > 100


def test_many_classes_are_drawn_on_a_page_of_bounded_height(tmp_path: Path) -> None:
    labels = torch.arange(300).repeat_interleave(2)
    names = [str(index) for index in range(300)]
    made = record(drift=torch.rand(600), drift_labels=labels)
    assert drawn(drift_histograms([read_record(put(tmp_path, made, class_names=names))])).height < 2000


def test_the_command_draws_first_and_last_task_and_tells_their_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for task in (0, 1, 7):
        put(tmp_path / "run", record(), task)
    code, said = run(capsys, str(tmp_path / "run"), "--out", str(tmp_path / "out"))
    assert code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*DRAWN, "exemplars.json"}
    assert all(name in said for name in (*CHOICES, "silhouette", "kept (nme)", "task 7: 12 exemplars moved"))
    figures = json.loads((tmp_path / "out/exemplars.json").read_text())
    assert [entry["task"] for entry in figures] == [0, 7]
    found = read_record(tmp_path / "run/exemplars_007.npz")
    assert figures[1] == json.loads(json.dumps(figures_of(found, choices(found))))
    assert f"{figures[0]['choices']['kept']['margin']:.3f}" in said


def test_the_grid_of_a_later_task_is_drawn_where_exemplars_changed_since(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, widths = record(), {}
    rows = torch.arange(2 * KEPT)  # a class fewer, the rest as before
    names = ("images_before", "images_after", "labels", "chosen_in", "exemplar_features")
    fewer = {name: getattr(made, name)[rows] for name in names}
    for name, later in (("still", record(**fewer)), ("moved", record(images_after=made.images_before + 9))):
        put(tmp_path / name, made, 0)
        put(tmp_path / name, later, 1)
        assert run(capsys, str(tmp_path / name))[0] == 0
        widths[name] = drawn((tmp_path / name / "exemplars.png").read_bytes()).width
    assert widths["moved"] > 1.8 * widths["still"]


def test_what_cannot_be_drawn_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, str(tmp_path / "absent"))
    assert code == 2
    assert "no such folder" in said
    (tmp_path / "runs/empty").mkdir(parents=True)
    code, said = run(capsys, str(tmp_path / "runs/empty"))
    assert code == 2
    assert all(name in said for name in WRITERS)
    put(tmp_path / "runs/one", record())
    assert f"Type: mmcl exemplars {tmp_path / 'runs/one'}" in run(capsys, str(tmp_path / "runs"))[1]


def test_a_file_cut_short_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path, record())
    path.write_bytes(path.read_bytes()[:400])
    code, said = run(capsys, str(tmp_path))
    assert code == 2
    assert f"{path}: damaged" in said


def test_the_page_shows_what_was_drawn(tmp_path: Path) -> None:
    write(tmp_path / "runs/drawn", content())
    write(tmp_path / "runs/bare", content())
    for name in DRAWN:
        (tmp_path / "runs/drawn" / name).write_bytes(b"picture")
    results, _ = find_results(tmp_path / "runs")
    reader, _ = read(write_report(results, [], tmp_path / "report.html"))
    assert reader.seen["img"] == len(DRAWN)
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in reader.addresses)
