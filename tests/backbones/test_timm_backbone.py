"""timm models by name: features, norms, checkpoints of several kinds, and what is said of those that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn.functional import layer_norm

from mmcl.backbones.timm_backbone import TimmBackbone, TimmConfig
from mmcl.errors import UserError

ARGS = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
CONFIG = TimmConfig("", "tiny", "vit_tiny_patch16_224", False, None, None, "fresh", ARGS)
IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
State = dict[str, torch.Tensor]


def trained(classes: int = 0) -> Any:
    """A model whose norm is not fresh any more."""
    torch.manual_seed(5)
    model = timm.create_model(CONFIG.model, num_classes=classes, **ARGS).eval()
    with torch.no_grad():
        model.norm.weight.uniform_(0.5, 2.0)
        model.norm.bias.uniform_(-1.0, 1.0)
    return model


def before_norm(model: Any) -> torch.Tensor:
    """Return the class token that a model's last norm sees."""
    seen = []
    handle = model.norm.register_forward_hook(lambda module, given, out: seen.append(given[0][:, 0]))
    model(IMAGES)
    handle.remove()
    return seen[0]


def as_safetensors(state: State, file: Path) -> None:
    save_file(state, file)


def as_state_dict(state: State, file: Path) -> None:
    torch.save(state, file)


def as_slca_has_it(state: State, file: Path) -> None:
    torch.save({"model": state}, file)


def as_moco_v3_has_it(state: State, file: Path) -> None:
    trained_side = {f"module.base_encoder.{name}": part for name, part in state.items()}
    others = {"module.base_encoder.head.0.weight": torch.zeros(4, 24), "module.predictor.0.weight": torch.zeros(2, 2)}
    slow = {f"module.momentum_encoder.{name}": torch.zeros_like(part) for name, part in state.items()}
    torch.save({"epoch": 300, "arch": "vit_base", "state_dict": {**trained_side, **slow, **others}}, file)


@pytest.mark.parametrize("save", [as_safetensors, as_state_dict, as_slca_has_it, as_moco_v3_has_it])
def test_every_kind_of_checkpoint_gives_the_class_token(save: Callable[[State, Path], None], tmp_path: Path) -> None:
    file, model = tmp_path / "weights.safetensors", trained(classes=7)
    file = file if save is as_safetensors else file.with_suffix(".pth")
    save(model.state_dict(), file)
    with torch.no_grad():
        kept = TimmBackbone(replace(CONFIG, final_norm="kept", checkpoint=str(file))).load().eval()
        torch.testing.assert_close(kept(IMAGES), model.forward_features(IMAGES)[:, 0])
        fresh = TimmBackbone(replace(CONFIG, checkpoint=str(file))).load().eval()
        torch.testing.assert_close(fresh(IMAGES), layer_norm(before_norm(model), (24,), eps=1e-5))
    assert fresh.dimension == kept.dimension == 24
    assert all(parameter.requires_grad for parameter in fresh.parameters())


def test_a_fresh_norm_needs_no_trained_one(tmp_path: Path) -> None:
    state = {name: part for name, part in trained().state_dict().items() if not name.startswith("norm.")}
    torch.save(state, tmp_path / "weights.pth")
    config = replace(CONFIG, checkpoint=str(tmp_path / "weights.pth"))
    assert TimmBackbone(config).load()(IMAGES).shape == (3, 24)
    with pytest.raises(UserError, match=r"it has no norm\.weight, norm\.bias"):
        TimmBackbone(replace(config, final_norm="kept")).load()


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    state = trained().state_dict()
    state["pos_embed"] = torch.zeros(1, 9, 24)
    state["blocks.2.norm1.weight"] = state.pop("blocks.1.norm1.weight")
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(UserError) as caught:
        TimmBackbone(replace(CONFIG, checkpoint=str(tmp_path / "other.pth"))).load()
    for part in (
        "it has no blocks.1.norm1.weight;",
        "no place for its blocks.2.norm1.weight;",
        "pos_embed is (1, 9, 24), expected (1, 5, 24)",
        "backbone.checkpoint",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"half", "is no checkpoint that can be read"), ({"model": {"epoch": 3}}, "holds no named tensors")],
)
def test_a_file_of_another_kind_is_named(content: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(UserError, match=rf"weights\.pth {message}"):
        TimmBackbone(replace(CONFIG, checkpoint=str(file))).load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "vit_tinny_patch16_224"}, "Did you mean 'vit_tiny_patch16_224'.*To list them"),
        ({"model": "vit_tiny_patch16_224.augreg_in22k"}, r"no such weights\. Did you mean 'augreg_in21k"),
        ({"model": "vit_base_patch16_xp_224", "pretrained": True, "model_args": {}}, "backbone.pretrained=false"),
        ({"model_args": {"dept": 2}}, "backbone.model_args=.*dept"),
        ({"model": "resnet18", "model_args": {}}, "backbone.final_norm=kept"),
        ({"checkpoint": "nowhere.pth"}, "backbone.checkpoint=nowhere.pth: no such file"),
    ],
)
def test_mistakes_are_found_before_anything_is_read(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TimmBackbone(replace(CONFIG, **change))


def test_another_norm_is_refused() -> None:
    with pytest.raises(UserError, match=r"final_norm=kep: expected fresh or kept\. Did you mean 'kept'"):
        replace(CONFIG, final_norm="kep")


def test_images_of_another_size_name_both() -> None:
    with pytest.raises(UserError, match=r"images of \(32, 32\), the backbone reads \(16, 16\)"):
        TimmBackbone(CONFIG).load()(torch.zeros(1, 3, 32, 32))


def test_reading_weights_leaves_the_draws_of_the_run_alone(tmp_path: Path) -> None:
    torch.save(trained().state_dict(), tmp_path / "weights.pth")
    state = torch.get_rng_state()
    backbone = TimmBackbone(replace(CONFIG, checkpoint=str(tmp_path / "weights.pth")))
    assert torch.equal(*(backbone.load()(IMAGES) for _ in range(2)))
    assert torch.equal(torch.get_rng_state(), state)
    at_random = TimmBackbone(CONFIG)
    assert not torch.equal(*(at_random.load()(IMAGES) for _ in range(2)))


def test_an_address_is_fetched_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    server = tmp_path / "server.pth"
    as_moco_v3_has_it(trained().state_dict(), server)
    backbone = TimmBackbone(replace(CONFIG, pretrained=True, url=server.as_uri()))
    first = backbone.load()(IMAGES)
    server.unlink()
    assert torch.equal(backbone.load()(IMAGES), first)
    missing = TimmBackbone(replace(CONFIG, pretrained=True, url=(tmp_path / "gone.pth").as_uri()))
    with pytest.raises(
        UserError, match=r"cannot fetch .*download the file file://.*gone\.pth.*backbone.checkpoint=FILE"
    ):
        missing.load()
    assert [path.name for path in (tmp_path / "home").rglob("*") if path.is_file()] == ["server.pth"]


def test_without_a_network_the_message_names_the_file_to_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(name: str, pretrained: bool, **arguments: Any) -> Any:
        if pretrained:
            raise OSError("no route to host")
        return made(name, pretrained=False, **arguments)

    made = timm.create_model
    monkeypatch.setattr(timm, "create_model", create)
    backbone = TimmBackbone(replace(CONFIG, model="vit_base_patch16_224.augreg_in21k", pretrained=True, model_args={}))
    with pytest.raises(UserError) as caught:
        backbone.load()
    for part in ("no route to host", "model.safetensors", "timm/vit_base_patch16_224.augreg_in21k", "checkpoint=FILE"):
        assert part in str(caught.value)
