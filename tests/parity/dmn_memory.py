"""DMN's memories, readout, losses and channel choice against golden values, by the functions that runs use."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl.methods.channel_selection import important_channels
from mmcl.methods.dmn_projections import POSITIONS, DmnProjections
from mmcl.methods.dmn_readout import fixed_slots, group_shots, make_slots, readout, static_slots, text_logits
from mmcl.methods.dmn_stream import DynamicMemory
from mmcl.methods.entropy import average_entropy, confident_count, confident_mean, confident_views, view_entropy
from mmcl.methods.text_classifier import text_classifier
from tests.parity import Golden, close, parity

PARAMETERS = {
    "query": "global_bias",
    "key": "global_bias_key",
    "value": "global_bias_value",
    "output": "global_ffn_bias",
    "text": "text_bias",
}


def tensor(golden: Golden, name: str) -> Tensor:
    return torch.from_numpy(golden[name])


def projections_at(position: str, golden: Golden) -> DmnProjections:
    """Return the recorded parameters, acting where the position says."""
    classes, dimension = golden["text_feat"].shape
    projections = DmnProjections(classes, dimension, position, "bias", bool(golden["shared_param"]), learn=False)
    for place, name in PARAMETERS.items():
        if f"param_{name}" in golden:
            getattr(projections, place).data.copy_(tensor(golden, f"param_{name}"))
    return projections


@parity("text_classifier")
def check_text_classifier(golden: Golden) -> None:
    text = text_classifier(tensor(golden, "raw_text_emb"), tensor(golden, "prompt_class"), len(golden["text_feat"]))
    close(text, golden["text_feat"])
    classes, dimension = text.shape
    no_shots = torch.zeros(classes, 0, 1, dimension)
    close(static_slots(text, no_shots), golden["static_slots_initial"])
    close(fixed_slots(text, no_shots), golden["dynamic_fixed_slots_initial"])
    memory = DynamicMemory(classes, 1, golden["dyn_entropy_initial"].shape[1], dimension)
    memory.restart(fixed_slots(text, no_shots), projections_at("none", {**golden, "shared_param": False}).current())
    assert memory.written_features.shape == tuple(golden["dyn_feat_shape"].tolist())
    assert not memory.written_features.any()
    close(memory.entropies, golden["dyn_entropy_initial"])
    close(memory.counts, golden["dyn_count_initial"])


@parity("select_views")
def check_select_views(golden: Golden) -> None:
    for case in range(int(golden["num_cases"])):
        probabilities = tensor(golden, f"case{case}_prob")
        entropies = view_entropy(probabilities)
        close(entropies, golden[f"case{case}_entropy"])
        count = confident_count(len(probabilities), float(golden[f"case{case}_top"]))
        ranking = confident_views(entropies, len(probabilities)).tolist()
        assert ranking[:count] == golden[f"case{case}_selected_idx"].tolist()
        assert ranking[count:] == golden[f"case{case}_rest_idx"].tolist()
        close(confident_mean(probabilities, len(probabilities)), probabilities.mean(dim=0))
        close(confident_mean(probabilities, count), golden[f"case{case}_mean_prob"])
        close(probabilities[confident_views(entropies, count)], golden[f"case{case}_selected_prob"])


@parity("memory_update")
def check_memory_update(golden: Golden) -> None:
    features, predictions = tensor(golden, "feat"), tensor(golden, "pred")
    labels, entropies = predictions.argmax(dim=1), view_entropy(predictions, 1e-8)
    classes, dimension = predictions.shape[1], features.shape[1]
    memory = DynamicMemory(classes, 1, int(golden["memory_size"]), dimension)
    nothing = DmnProjections(classes, dimension, "none", "bias", False, learn=False).current()
    text = F.normalize(torch.randn(classes, 1, dimension), dim=2)
    memory.restart(text, nothing)
    for step in range(len(features)):
        rows = slice(step, step + 1)
        before = memory.written_features.clone()
        memory.write_and_read(features[rows], labels[rows], entropies[rows], nothing, 5.5, 20.0)
        close(memory.written_features, golden["mem_feat_after"][step])
        close(memory.entropies, golden["mem_entropy_after"][step])
        close(memory.counts, golden["mem_count_after"][step])
        label, slot = golden["written_class_slot"][step].tolist()
        changed = (memory.written_features != before).any(dim=2).nonzero().tolist()
        assert changed in ([] if slot < 0 else [[label, slot]], []), f"step {step} wrote {changed}"
    stepwise = memory.state_dict()
    memory.restart(text, nothing)
    memory.write_and_read(features, labels, entropies, nothing, 5.5, 20.0)  # all at once
    for name, part in memory.state_dict().items():
        close(part, stepwise[name])


@parity("readout")
def check_readout(golden: Golden) -> None:
    images, scale, beta = tensor(golden, "image_feat"), float(golden["logit_scale_exp"]), float(golden["beta"])
    text = tensor(golden, "text_feat")
    channels = torch.zeros(images.shape[1])
    channels[tensor(golden, "channel_idx")] = 1.0
    fixed, written = tensor(golden, "dyn_fixed_slots"), tensor(golden, "dyn_mem_feat")
    counted = torch.arange(written.shape[1]) < tensor(golden, "dyn_count")[:, None]
    valid = torch.cat([torch.ones(fixed.shape[:2], dtype=torch.bool), counted], dim=1)
    for position in POSITIONS:
        projections = projections_at(position, golden)
        current = projections.current()
        dynamic = readout(
            images[:1], make_slots(torch.cat([fixed, written], dim=1), current), valid, current, beta, scale
        )
        close(dynamic.detach(), golden[f"dynamic_logits__{position}"])
        close(dynamic.softmax(dim=1).detach(), golden[f"dynamic_prob__{position}"])
        slots = make_slots(tensor(golden, "static_slots"), current)
        static = readout(images, slots, None, current, beta, scale, channels)
        close(static.detach(), golden[f"static_logits__{position}"])
        close(static[:1].softmax(dim=1).detach(), golden[f"static_prob_first__{position}"])
        logits = text_logits(images, text, projections.text_bias, scale)
        close(logits.detach(), golden[f"text_logits__{position}"])
        close(logits.softmax(dim=1).detach(), golden[f"text_prob__{position}"])


@parity("static_build")
def check_static_build(golden: Golden) -> None:
    text = tensor(golden, "text_feat")
    shots = group_shots(tensor(golden, "raw_image_feat"), tensor(golden, "labels"), int(golden["n_class"]))
    close(static_slots(text, shots), golden["static_slots"])
    close(fixed_slots(text, shots), golden["dyn_fixed_slots"])


@parity("channel_select")
def check_channel_select(golden: Golden) -> None:
    for case in range(int(golden["num_cases"])):
        count, weight = int(golden[f"case{case}_k"]), float(golden[f"case{case}_lambda"])
        channels = important_channels(tensor(golden, "text_feat"), count, weight)
        assert channels.tolist() == golden[f"case{case}_idx"].tolist()


@parity("losses")
def check_losses(golden: Golden) -> None:
    """Check the losses of learning and of TPT."""
    labels = tensor(golden, "labels")
    for smoothing in ("0.0", "0.1"):
        logits = tensor(golden, "logits").requires_grad_()
        loss = F.cross_entropy(logits, labels, label_smoothing=float(smoothing))
        close(loss.detach(), golden[f"smooth{smoothing}_loss"])
        close(torch.autograd.grad(loss, logits)[0], golden[f"smooth{smoothing}_grad"])
    logits = tensor(golden, "logits").requires_grad_()
    entropy = average_entropy(logits)
    close(entropy.detach(), golden["avg_entropy"])
    close(torch.autograd.grad(entropy, logits)[0], golden["avg_entropy_grad"])
