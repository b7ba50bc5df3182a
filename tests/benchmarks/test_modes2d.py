"""MODES and MOONS: the published points, the orders of a stream, and files of it, good and bad."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmcl.benchmarks.modes2d import ORDERS, Modes2D, Modes2DConfig
from mmcl.benchmarks.modes2d_generator import SHAPES
from mmcl.benchmarks.online import EVALUATIONS, OnlineStream
from mmcl.errors import MissingFileError, UserError
from mmcl.protocol import StreamSamples

CONFIG = Modes2DConfig(
    _target_="mmcl.benchmarks.modes2d.Modes2D",
    name="modes2d",
    data="",
    shape="modes",
    order="ci",
    source="generated",
    data_seed=0,
    batch_size=1,
    evaluate=["test", "validation"],
    steps_per_block=50,
)
TRAIN_COUNTS = {
    ("modes", "iid"): [1000],
    ("modes", "ci"): [200, 400, 100, 300],
    ("modes", "cdi"): [100, 200, 50, 150] * 2,
    ("moons", "iid"): [1000],
    ("moons", "ci"): [400, 100, 300, 200],
    ("moons", "cdi"): [200, 50, 150, 100] * 2,
}
DATA = Path(os.environ.get("MMCL_DATA", "without MMCL_DATA"))
SUFFIXES = {"train": "train", "validation": "val", "test": "test"}


def stream(**changes: Any) -> OnlineStream:
    return Modes2D(replace(CONFIG, **changes)).stream


def counts(samples: StreamSamples) -> list[int]:
    return samples.distributions.bincount().tolist()


@pytest.mark.parametrize(("shape", "order"), TRAIN_COUNTS)
def test_distributions_have_the_published_sizes(shape: str, order: str) -> None:
    made, expected = stream(shape=shape, order=order), TRAIN_COUNTS[shape, order]
    half = [count // 2 for count in expected]
    assert counts(made.train) == expected
    assert counts(made.test) == half
    assert counts(made.validation) == ([250] if order == "iid" else half[: len(half) // 2])
    assert made.train.features.dtype == torch.float32
    assert made.train.features.shape == (1000, 2)


def test_names_say_what_a_distribution_is() -> None:
    assert stream(order="iid").distribution_names == ["all"]
    assert stream(order="ci").distribution_names == [f"class {label}" for label in range(4)]
    names = stream(order="cdi").distribution_names
    assert names == [f"domain {domain}, class {label}" for domain in range(2) for label in range(4)]


@pytest.mark.parametrize("shape", SHAPES)
def test_orders_bring_the_same_samples(shape: str) -> None:
    def content(order: str) -> list[list[float]]:
        train = stream(shape=shape, order=order).train
        return sorted(torch.cat([train.features, train.labels[:, None]], dim=1).tolist())

    assert content("iid") == content("ci") == content("cdi") == content("cdid")


@pytest.mark.parametrize("shape", SHAPES)
def test_samples_come_as_their_order_says(shape: str) -> None:
    by_class, by_both, sorted_too = (stream(shape=shape, order=order) for order in ("ci", "cdi", "cdid"))
    assert torch.equal(by_class.train.labels, by_class.train.distributions)
    for made in (by_both, sorted_too):
        assert torch.equal(made.train.labels, made.train.distributions % 4)
    assert len(stream(shape=shape, order="iid").train.labels[:20].unique()) > 1
    for number in range(8):
        first = sorted_too.train.features[sorted_too.train.distributions == number, 0]
        assert bool((first.diff() >= 0).all())
        first = by_both.train.features[by_both.train.distributions == number, 0]
        assert not bool((first.diff() >= 0).all())


@pytest.mark.parametrize("shape", SHAPES)
def test_another_data_seed_draws_other_points_of_the_same_distributions(shape: str) -> None:
    published, other = (stream(shape=shape, order="cdi", data_seed=seed).train for seed in (0, 7))
    assert torch.equal(published.labels, other.labels)
    assert not {*map(tuple, published.features.tolist())} & {*map(tuple, other.features.tolist())}
    again = stream(shape=shape, order="cdi", data_seed=7).train
    assert torch.equal(again.features, other.features)
    for number in range(8):
        centres = [made.features[made.distributions == number].mean(dim=0) for made in (published, other)]
        torch.testing.assert_close(*centres, atol=0.1, rtol=0)


def test_misspelt_keys_are_refused() -> None:
    with pytest.raises(UserError, match="benchmark.order=cdii.*Did you mean 'cdi'"):
        replace(CONFIG, order="cdii")
    with pytest.raises(UserError, match="benchmark.shape=moon.*Did you mean 'moons'"):
        replace(CONFIG, shape="moon")
    with pytest.raises(UserError, match=r"data_seed=1: the files hold.*benchmark\.source=generated"):
        replace(CONFIG, source="files", data_seed=1)


# Files


def arrays(order: str = "ci") -> dict[str, Any]:
    """Return what the authors' file of a stream holds, the pickled record of its making included."""
    made, found = (
        stream(order=order),
        {"order": np.array(order.upper()), "dataset": np.array({"n": 1000}, dtype=object)},
    )
    for name, suffix in SUFFIXES.items():
        samples: StreamSamples = getattr(made, name)
        found[f"X_{suffix}"] = samples.features.double().numpy()
        found[f"y_{suffix}"] = samples.labels.numpy()
        found[f"distributions_{suffix}"] = samples.distributions.numpy()
    return found


def from_file(folder: Path, content: dict[str, Any]) -> Modes2D:
    path = folder / "modes2d" / "bi-modals_CI.npz"
    path.parent.mkdir()
    np.savez(path, **content)
    return Modes2D(replace(CONFIG, source="files", data=str(folder)))


def test_a_file_gives_the_stream_that_it_holds(tmp_path: Path) -> None:
    benchmark, expected = from_file(tmp_path, arrays()), stream()
    for name in EVALUATIONS:
        found, wanted = getattr(benchmark.stream, name), getattr(expected, name)
        assert torch.equal(found.features, wanted.features)
        assert torch.equal(found.labels, wanted.labels)
        assert torch.equal(found.distributions, wanted.distributions)
    assert [item.present for item in benchmark.describe_data()] == [True]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    benchmark = Modes2D(replace(CONFIG, source="files", shape="moons", order="cdid", data=str(tmp_path)))
    with pytest.raises(MissingFileError, match=r"bi-moons_CDID\.npz is missing.*benchmark\.source=generated"):
        benchmark.setup()
    assert [item.present for item in benchmark.describe_data()] == [False]
    assert Modes2D(CONFIG).describe_data() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X_train": np.zeros((1000, 3))}, r"shapes of train are \(1000, 3\)"),
        ({"y_val": np.zeros(7, np.int64)}, "shapes of val"),
        ({"y_test": np.zeros(500)}, "y_test and distributions_test are no integers"),
        ({"X_train": np.array({}, dtype=object)}, "allow_pickle"),
        ({"X_train": np.full((1000, 2), "a")}, "could not convert"),
    ],
)
def test_a_file_of_another_content_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"bi-modals_CI\.npz cannot be read.*{message}"):
        from_file(tmp_path, {**arrays(), **change}).setup()


def test_a_file_cut_short_or_without_a_key_is_refused(tmp_path: Path) -> None:
    content = arrays()
    del content["y_test"]
    benchmark = from_file(tmp_path, content)
    with pytest.raises(UserError, match="cannot be read.*y_test"):
        benchmark.setup()
    benchmark.file.write_bytes(benchmark.file.read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot be read"):
        benchmark.setup()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("X_train", np.nan, "train sample 3 has a value that is not a finite number"),
        ("y_val", 4, "label of the stream's validation sample 3 is 4: expected 0 to 3"),
        ("distributions_test", -1, "distribution of the stream's test sample 3 is -1"),
        ("distributions_train", 2, "one after the other"),
    ],
)
def test_samples_that_a_learner_would_choke_on_are_refused(tmp_path: Path, key: str, value: Any, message: str) -> None:
    content = arrays()
    content[key] = content[key].copy()
    content[key][3] = value
    with pytest.raises(UserError, match=message):
        from_file(tmp_path, content).setup()


@pytest.mark.real
@pytest.mark.skipif(not (DATA / "modes2d").is_dir(), reason="set MMCL_DATA to the folder that has modes2d")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ORDERS)
def test_the_generator_draws_what_the_published_files_hold(shape: str, order: str) -> None:
    made = stream(shape=shape, order=order)
    read = stream(shape=shape, order=order, source="files", data=str(DATA))
    for name in EVALUATIONS:
        ours, theirs = getattr(made, name), getattr(read, name)
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(ours.distributions, theirs.distributions)
        if order in ("iid", "cdid"):
            assert torch.equal(ours.features, theirs.features)
        for number in range(ours.distribution_count):
            parts = [samples.features[samples.distributions == number] for samples in (ours, theirs)]
            assert sorted(parts[0].tolist()) == sorted(parts[1].tolist())
