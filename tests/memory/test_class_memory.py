from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmcl.errors import UserError
from mmcl.memory.class_memory import ClassMemory, MemoryContent
from mmcl.memory.prototypes import ClassRows

ENCODER = "5f3a"


def some_rows(seed: int, counts: list[int]) -> ClassRows:
    generator = torch.Generator().manual_seed(seed)
    classes = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    classes = classes[torch.randperm(len(classes), generator=generator)]
    return ClassRows(torch.randn(len(classes), 6, generator=generator), classes)


def content(seed: int, classes: int = 3, shots: bool = False) -> MemoryContent:
    images, texts = some_rows(seed, [4, 9, 6, 5][:classes]), some_rows(seed + 1, [7, 5, 3, 8][:classes])
    return MemoryContent(images, texts, some_rows(seed + 2, [2] * classes) if shots else None, classes)


def images_alone(given: MemoryContent) -> MemoryContent:
    return given._replace(texts=ClassRows(given.texts.features[:0], given.texts.classes[:0]))


def memory_of(given: MemoryContent, storage: str = "float32") -> ClassMemory:
    memory = ClassMemory(ENCODER, 4, storage)
    memory.replace(given, ENCODER)
    return memory


def joined(first: MemoryContent, second: MemoryContent) -> MemoryContent:
    """Both contents as one, by hand."""
    parts = {
        name: ClassRows(
            torch.cat([rows.features, second.parts()[name].features]),
            torch.cat([rows.classes, second.parts()[name].classes + first.class_count]),
        )
        for name, rows in first.parts().items()
    }
    return MemoryContent(parts["images"], parts["texts"], parts.get("shots"), first.class_count + second.class_count)


def assert_same(first: ClassMemory, second: ClassMemory) -> None:
    """To the bit."""
    assert first.fingerprint() == second.fingerprint()
    for ours, theirs in zip(first.prototypes, second.prototypes, strict=True):
        assert torch.equal(ours, theirs)


def test_replace_and_back_restores_every_bit() -> None:
    memory = memory_of(content(0))
    before, other = memory_of(content(0)), memory_of(content(10, 2))
    memory.replace(content(10, 2), ENCODER)
    assert_same(memory, other)
    assert memory.fingerprint() != before.fingerprint()
    memory.replace(content(0), ENCODER)
    assert_same(memory, before)


@pytest.mark.parametrize("shots", [False, True])
@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_append_and_union_equal_a_rebuild(shots: bool, storage: str) -> None:
    first, second = content(0, shots=shots), content(10, 2, shots=shots)
    appended, united = memory_of(first, storage), memory_of(first, storage)
    appended.append(second, ENCODER)
    united.union(memory_of(second, storage))
    rebuilt = memory_of(joined(first, second), storage)
    assert appended.class_count == 5
    assert_same(appended, rebuilt)
    assert_same(united, rebuilt)


def test_a_memory_of_images_alone_grows_and_comes_back(tmp_path: Path) -> None:
    first, second = images_alone(content(0)), images_alone(content(10, 2))
    memory = memory_of(first)
    memory.append(second, ENCODER)
    assert_same(memory, memory_of(joined(first, second)))
    assert torch.equal(memory.prototypes.images, memory.prototypes.texts)
    memory.save(tmp_path / "m.safetensors", {})
    loaded, restored = ClassMemory(ENCODER, 4), ClassMemory(ENCODER, 4)
    loaded.load(tmp_path / "m.safetensors")
    restored.load_state_dict(memory.state_dict())
    for other in (loaded, restored):
        assert_same(other, memory)
    memory.remove([3, 4])
    assert_same(memory, memory_of(first))
    with pytest.raises(UserError, match="sentences for all of them, or for none"):
        memory.append(content(0), ENCODER)
    assert_same(memory, memory_of(first))


def test_an_empty_memory_grows() -> None:
    appended, united = ClassMemory(ENCODER, 4), ClassMemory(ENCODER, 4)
    appended.append(content(0), ENCODER)
    united.union(appended)
    assert_same(appended, memory_of(content(0)))
    assert_same(united, appended)


def test_remove_takes_back_an_append_and_numbers_anew() -> None:
    memory = memory_of(content(0))
    memory.append(content(10, 2), ENCODER)
    memory.remove([0, 1, 2])
    assert_same(memory, memory_of(content(10, 2)))
    memory.remove([0])
    rows = content(10, 2).texts
    assert memory.class_count == 1
    assert torch.equal(memory.content.texts.features, rows.features[rows.classes == 1])
    memory.remove([0])
    assert memory.class_count == memory.nbytes == 0
    with pytest.raises(UserError, match="the memory is empty"):
        memory.prototypes  # noqa: B018
    with pytest.raises(UserError, match="class 7 is not in the memory"):
        memory_of(content(0)).remove([7])


def test_rows_lie_by_class_and_their_bytes_are_counted() -> None:
    memory = memory_of(content(0), "float16")
    images, texts = memory.content.images, memory.content.texts
    assert images.features.dtype == torch.float16
    assert images.classes.tolist() == sorted(content(0).images.classes.tolist())
    rows = len(images.classes) + len(texts.classes)
    assert memory.nbytes == rows * (6 * 2 + 8) + 2 * 3 * 6 * 4


BAD = {
    "no text for class 1 of 3": content(0)._replace(
        texts=ClassRows(content(0).texts.features[:2], torch.tensor([0, 2]))
    ),
    "expected 0 to 1": content(0)._replace(class_count=2),
    "at least one class": content(0)._replace(class_count=0),
    "2 images with 1 classes": content(0)._replace(images=ClassRows(torch.ones(2, 6), torch.tensor([0]))),
    "different lengths": content(0)._replace(images=ClassRows(torch.ones(1, 5), torch.tensor([0]))),
    "not finite in float16": content(0)._replace(images=ClassRows(torch.full((1, 6), 1e6), torch.tensor([0]))),
}


@pytest.mark.parametrize("message", BAD)
def test_a_failed_change_leaves_the_memory(message: str) -> None:
    memory = memory_of(content(0), "float16")
    for change in (memory.replace, memory.append):
        with pytest.raises(UserError, match=message):
            change(BAD[message], ENCODER)
        assert_same(memory, memory_of(content(0), "float16"))


def test_other_encoders_and_makes_are_refused() -> None:
    memory = memory_of(content(0))
    for change in (memory.replace, memory.append):
        with pytest.raises(UserError, match="rows of the encoder 77 for a memory of the encoder 5f3a"):
            change(content(1), "77")
    with pytest.raises(UserError, match="top=4, the other 5"):
        memory.union(ClassMemory(ENCODER, 5))
    with pytest.raises(UserError, match="encoder 77"):
        memory.union(ClassMemory("77", 4))
    with pytest.raises(UserError, match="shots for all of them"):
        memory.append(content(1, shots=True), ENCODER)
    with pytest.raises(UserError, match="Did you mean 'float16'"):
        ClassMemory(ENCODER, 4, "float61")
    assert_same(memory, memory_of(content(0)))


def test_equal_rows_of_another_encoder_have_another_fingerprint() -> None:
    other = ClassMemory("77", 4)
    other.replace(content(0), "77")
    assert other.fingerprint() != memory_of(content(0)).fingerprint()


@pytest.mark.parametrize("shots", [False, True])
def test_files_and_states_bring_all_of_it_back(tmp_path: Path, shots: bool) -> None:
    memory = memory_of(content(0, shots=shots), "float16")
    memory.save(tmp_path / "birds.safetensors", {"dataset": "birds"})
    loaded, restored = ClassMemory(ENCODER, 4, "float16"), ClassMemory(ENCODER, 4, "float16")
    recipe = loaded.load(tmp_path / "birds.safetensors")
    restored.load_state_dict(memory.state_dict())
    assert recipe["source"] == {"dataset": "birds"}
    assert recipe["fingerprint"] == memory.fingerprint()
    for other in (loaded, restored):
        assert_same(other, memory)
        assert (other.content.shots is not None) == shots
    assert [path.name for path in tmp_path.iterdir()] == ["birds.safetensors"]


def test_files_that_do_not_fit_leave_the_memory(tmp_path: Path) -> None:
    path, memory = tmp_path / "m.safetensors", memory_of(content(0))
    with pytest.raises(UserError, match="there is no memory"):
        memory.load(path)
    memory_of(content(5)).save(path, {})
    for other in (ClassMemory("77", 4), ClassMemory(ENCODER, 5), ClassMemory(ENCODER, 4, "float16")):
        with pytest.raises(UserError, match=r"was made with (encoder=5f3a|top=4|storage=float32)"):
            other.load(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] + b"abc")
    with pytest.raises(UserError, match="damaged|expected 0 to"):
        memory.load(path)
    path.write_bytes(whole[:100])
    with pytest.raises(UserError, match="no memory that can be read"):
        memory.load(path)
    assert_same(memory, memory_of(content(0)))


def test_a_failed_save_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    memory_of(content(0)).save(path, {})
    before = path.read_bytes()
    with pytest.raises(UserError, match="the memory is empty"):
        ClassMemory(ENCODER, 4).save(path, {})
    assert path.read_bytes() == before
    with pytest.raises(UserError, match="this run has 77"):
        ClassMemory("77", 4).load_state_dict(memory_of(content(0)).state_dict())
