from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from omegaconf import OmegaConf
from safetensors.torch import save_file

from mmcl.backbones import clip_weights
from mmcl.backbones.clip import ClipBackbone, ClipConfig
from mmcl.backbones.dual_encoder import OPENAI_MEAN, OPENAI_STD
from mmcl.config.components import build
from mmcl.config.locate import shipped_folder
from mmcl.errors import UserError

TINY = "mmcl-tiny"
ARCHITECTURE = {
    "embed_dim": 32,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
    "text_cfg": {"layers": 2, "width": 32, "heads": 2, "context_length": 12},
}
HALF_A_FILE = b"half"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model that open_clip knows by name, with random weights."""
    description = tmp_path_factory.mktemp("models") / f"{TINY}.json"
    description.write_text(json.dumps(ARCHITECTURE))
    open_clip.add_model_config(description)
    torch.manual_seed(1)
    return open_clip.CLIP(**ARCHITECTURE).eval()


def backbone(
    model: str = "ViT-B-16-quickgelu",
    pretrained: str | None = None,
    checkpoint: Path | str | None = None,
    interpolation: str = "bicubic",
) -> ClipBackbone:
    return ClipBackbone(ClipConfig("", "clip", model, pretrained, checkpoint and str(checkpoint), interpolation))


def as_torch_file(model: Any, file: Path) -> None:
    torch.save(model.state_dict(), file)


def as_training_checkpoint(model: Any, file: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": part for name, part in model.state_dict().items()}}, file)


def as_safetensors(model: Any, file: Path) -> None:
    save_file(model.state_dict(), file.with_suffix(".safetensors"))
    file.with_suffix(".safetensors").rename(file)


def as_torchscript(model: Any, file: Path) -> None:
    """As OpenAI's own files are: a traced model with a number that is no weight."""
    model = copy.deepcopy(model)
    model.register_buffer("input_resolution", torch.tensor(16))
    inputs = (torch.zeros(1, 3, 16, 16), torch.zeros(1, 12, dtype=torch.long))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, inputs, check_trace=False).save(str(file))


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("weights.pt", as_torch_file),
        ("epoch_3.pt", as_training_checkpoint),
        ("weights.safetensors", as_safetensors),
        ("archive.pt", as_torchscript),
    ],
)
def test_a_local_checkpoint_gives_the_models_features(
    tiny: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, save: Callable[[Any, Path], None]
) -> None:
    save(tiny, tmp_path / name)
    capfd.readouterr()
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder = backbone(TINY, checkpoint=tmp_path / name).load()
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)
    images, tokens = torch.randn(2, 3, 16, 16), encoder.tokenize(["a cat", "two dogs"])
    padded = torch.nn.functional.pad(tokens, (0, 12 - tokens.shape[1]))
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode_images(images), tiny.encode_image(images))
        torch.testing.assert_close(encoder.encode_tokens(tokens), tiny.encode_text(padded))
    assert (encoder.mean, encoder.std, encoder.interpolation) == (OPENAI_MEAN, OPENAI_STD, "bicubic")


def test_half_precision_weights_become_float32(tiny: Any, tmp_path: Path) -> None:
    torch.save({name: part.half() for name, part in tiny.state_dict().items()}, tmp_path / "half.pt")
    encoder = backbone(TINY, checkpoint=tmp_path / "half.pt").load()
    assert {part.dtype for part in encoder.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95, 0.999])
@pytest.mark.parametrize("save", [as_torch_file, as_safetensors])
def test_a_truncated_checkpoint_is_named(
    tiny: Any, tmp_path: Path, save: Callable[[Any, Path], None], share: float
) -> None:
    file = tmp_path / ("cut.safetensors" if save is as_safetensors else "cut.pt")
    save(tiny, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"cut\.\w+ is no checkpoint that can be read"):
        backbone(TINY, checkpoint=file).load()


@pytest.mark.parametrize("content", [b"not weights", b"<html>404</html>" * 99, bytes(range(256)) * 9, b"\x80\x02."])
def test_something_else_is_no_checkpoint(tiny: Any, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.pt").write_bytes(content)
    with pytest.raises(UserError, match="other.pt is no checkpoint"):
        backbone(TINY, checkpoint=tmp_path / "other.pt").load()


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, {"state_dict": {}}])
def test_a_file_without_tensors_is_refused(tiny: Any, tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "list.pt")
    with pytest.raises(UserError, match="holds no named tensors"):
        backbone(TINY, checkpoint=tmp_path / "list.pt").load()


def without_a_bias(weights: dict[str, Any]) -> None:
    del weights["ln_final.bias"]


def with_more_positions(weights: dict[str, Any]) -> None:
    weights["visual.positional_embedding"] = torch.zeros(10, 32)


def with_a_head(weights: dict[str, Any]) -> None:
    weights["head.weight"] = torch.zeros(3, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_a_bias, r"it has no ln_final.bias \(32,\)"),
        (with_more_positions, r"its visual.positional_embedding is \(10, 32\), expected \(5, 32\)"),
        (with_a_head, r"its head.weight \(3, 32\) has no place there"),
    ],
)
def test_another_models_weights_are_refused_by_tensor(
    tiny: Any, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    weights = dict(tiny.state_dict())
    change(weights)
    torch.save(weights, tmp_path / "wrong.pt")
    with pytest.raises(UserError, match=rf"wrong.pt does not fit {TINY}: {message}. Check backbone.model"):
        backbone(TINY, checkpoint=tmp_path / "wrong.pt").load()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"model": "ViT-B16", "pretrained": "openai"},
            r"no such model\. Did you mean 'ViT-B-16'\? To list them: python",
        ),
        ({"model": "coca_ViT-B-32", "pretrained": "laion2b_s13b_b90k"}, "not open_clip's own.*benchmark=features"),
        ({"pretrained": "opnai"}, r"no such weights\. Did you mean 'openai'\? Known: openai, .*metaclip"),
        (
            {"model": "ViT-B-16", "pretrained": "openai"},
            r"trained with QuickGELU.*Type backbone.model=ViT-B-16-quickgelu$",
        ),
        ({"model": "ViT-B-32", "pretrained": "laion400m_e32"}, "Type backbone.model=ViT-B-32-quickgelu$"),
        ({"pretrained": "laion2b_s34b_b88k"}, r"trained with GELU.*Type backbone.model=ViT-B-16$"),
        ({}, r"both null.*pretrained=TAG \(openai,.*or backbone.checkpoint=FILE"),
        ({"checkpoint": "/nowhere/ViT-B-16.pt"}, "checkpoint=/nowhere/ViT-B-16.pt: no such file"),
        ({"pretrained": "openai", "interpolation": "bicubik"}, "expected bicubic or bilinear. Did you mean 'bicubic'"),
        ({"pretrained": "openai", "interpolation": "bilinear"}, "Type backbone.image_interpolation=bicubic"),
        ({"model": "ViT-H-14-378-quickgelu", "pretrained": "dfn5b"}, "squashed to a square"),
    ],
)
def test_mistakes_are_found_before_anything_is_loaded(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message), torch.device("meta"):
        backbone(**keys)


def test_a_file_brought_for_a_tag_is_prepared_as_the_tag_says(tmp_path: Path) -> None:
    (tmp_path / "file.pt").touch()
    keys = {"model": "ViT-L-14", "pretrained": "laion2b_s32b_b82k"}
    assert backbone(**keys, checkpoint=tmp_path / "file.pt")._preprocessing["mean"] == (0.5, 0.5, 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("failure", [LocalEntryNotFoundError("no\nnetwork"), OSError("disk full"), ValueError("proxy")])
def test_without_a_network_the_file_to_bring_is_named(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    asked: list[str] = []

    def hf_hub_download(repository: str, name: str) -> str:
        asked.append(f"{repository}/{name}")
        raise failure

    monkeypatch.setattr(clip_weights, "hf_hub_download", hf_hub_download)
    with pytest.raises(UserError) as raised:
        backbone(pretrained="openai").load()
    message = str(raised.value)
    assert asked == ["timm/vit_base_patch16_clip_224.openai/open_clip_model.safetensors"]
    for part in (
        "'openai' of ViT-B-16-quickgelu",
        "open_clip_model.safetensors",
        "ViT-B-16.pt from",
        "checkpoint=FILE",
    ):
        assert part in message
    assert "\n" not in message


def test_a_repository_without_safetensors_gives_its_other_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def hf_hub_download(repository: str, name: str) -> str:
        if name.endswith(".safetensors"):
            raise EntryNotFoundError(name)
        return f"/hub/{repository}/{name}"

    monkeypatch.setattr(clip_weights, "hf_hub_download", hf_hub_download)
    file = clip_weights.fetch_weights("ViT-B-16-quickgelu", "openai")
    assert file == Path("/hub/timm/vit_base_patch16_clip_224.openai/open_clip_pytorch_model.bin")


@pytest.fixture
def weights_by_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder into which published weights that have an address alone are downloaded."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(clip_weights, "published_weights", lambda *_: {"url": "http://nowhere/weights-1.pt"})
    return tmp_path / ".cache" / "clip"


def test_a_broken_download_leaves_nothing(weights_by_url: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(url: str, cache_dir: str) -> str:
        (Path(cache_dir) / "weights-1.pt").write_bytes(HALF_A_FILE)
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(open_clip, "download_pretrained_from_url", break_off)
    with pytest.raises(UserError, match=r"reset by peer\).*weights-1.pt from http://nowhere/weights-1.pt"):
        clip_weights.fetch_weights("any", "tag")
    assert not [path for path in weights_by_url.iterdir() if path.suffix != ".lock"]


def test_a_file_is_downloaded_once(weights_by_url: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads: list[str] = []

    def download(url: str, cache_dir: str) -> str:
        downloads.append(url)
        (Path(cache_dir) / "weights-1.pt").write_bytes(b"whole")
        return f"{cache_dir}/weights-1.pt"

    monkeypatch.setattr(open_clip, "download_pretrained_from_url", download)
    files = {clip_weights.fetch_weights("any", "tag") for _ in range(2)}
    assert files == {weights_by_url / "weights-1.pt"}
    assert len(downloads) == 1
    assert (weights_by_url / "weights-1.pt").read_bytes() == b"whole"


CONFIGS = ["clip_rn50", "clip_vit_b16", "clip_vit_b32", "clip_vit_l14", "open_clip"]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_shipped_configuration_is_valid_and_opens_with_its_command(name: str) -> None:
    file = Path(shipped_folder("conf")) / "backbone" / f"{name}.yaml"
    assert file.read_text().startswith(f"# python -m mmcl.run +method=dmn benchmark=clip/dtd backbone={name} ")
    config = OmegaConf.load(file)
    assert config.name == name
    assert isinstance(build(config), ClipBackbone)  # type: ignore[arg-type]
