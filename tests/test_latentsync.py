"""LatentSync's network against what the original code computed with the same weights."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from torch import nn

from engines.latentsync.unet import ClipNorm, FramePositions, LatentSyncUNet, UNetShape, shape_of
from tests.published import (
    Golden,
    by_rule,
    distance,
    key_list,
    needs_published,
    needs_time,
    rule_state,
    rule_tensor,
    sound,
)

pytestmark = needs_published

TINY = (32, 64, 64, 96)
TOLERANCE = 5e-5
SMALL_MAPS = 2e-4  # where maps shrink to one pixel a norm sees few values and amplifies


def inputs(golden: Golden) -> tuple[torch.Tensor, int, torch.Tensor]:
    """Sample, timestep and audio of a case; what is not stored is drawn again."""
    if "audio" in golden.arrays:
        audio = golden.tensor("audio")
    else:
        seed = int(golden.facts["input_rule"].split("audio = default_rng(")[1].split(")")[0])
        shape = (golden.facts["batch"], golden.facts["frames"], 50, 384)
        audio = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))
    return golden.tensor("input"), golden.facts["timestep"], audio


def test_the_rule_is_the_stated_one() -> None:
    for sample in Golden("weight_rule_samples").facts["samples"]:
        drawn = rule_tensor(sample["name"], tuple(sample["shape"]))
        assert zlib.crc32(drawn.tobytes()) == sample["crc32_bytes"], sample["name"]
    case = Golden("latentsync_whisper_features")
    assert np.array_equal(sound(31.7, 22)[:100], case["31s7_signal"])
    assert np.array_equal(sound(3.0, 21), case["3s_signal"])


@pytest.mark.parametrize(
    ("name", "motion"),
    [("latentsync_unet_stage2", "everywhere"), ("latentsync_unet_stage2_efficient", "decoder")],
)
def test_tensors_are_those_of_the_published_files(name: str, motion: str) -> None:
    listed = key_list(name)
    with torch.device("meta"):
        network = LatentSyncUNet(UNetShape(motion=motion))
    state = network.state_dict()
    assert {key: list(tensor.shape) for key, tensor in state.items()} == {
        key: shape for key, (shape, _) in listed["tensors"].items()
    }
    assert shape_of(state) == UNetShape(motion=motion)
    eps = {module: norm["eps"] for norm in listed["norms"] if norm["kind"] == "GroupNorm" for module in norm["modules"]}
    ours = {name: module.eps for name, module in network.named_modules() if isinstance(module, nn.GroupNorm)}
    assert ours == eps


@pytest.mark.parametrize(
    ("case", "motion", "tolerance"),
    [
        ("stage1", "nowhere", SMALL_MAPS),
        ("stage2", "everywhere", TOLERANCE),
        ("stage2_efficient", "decoder", SMALL_MAPS),
    ],
)
@torch.inference_mode()
def test_forward(case: str, motion: str, tolerance: float) -> None:
    golden = Golden(f"latentsync_unet_tiny_{case}")
    network = by_rule(LatentSyncUNet(UNetShape(TINY, motion)))
    sample, step, audio = inputs(golden)
    assert distance(network(sample, step, audio), golden["output"]) < tolerance
    assert distance(network(sample, step, torch.zeros_like(audio)), golden["output_zero_audio"]) < tolerance


@torch.inference_mode()
def test_inner_layers() -> None:
    golden, seen = Golden("latentsync_unet_tiny_stage2"), {}
    network = by_rule(LatentSyncUNet(UNetShape(TINY)))
    first = network.down_blocks[0]
    modules = {
        "time_embedding": network.time_embedding,
        "conv_in": network.conv_in,
        "down0_resnet0": first.resnets[0],
        "down0_motion0": first.motion_modules[0],
        "down0": first,
        "down3": network.down_blocks[3],
        "mid": network.mid_block,
        "up0_motion0": network.up_blocks[0].motion_modules[0],
        "up3": network.up_blocks[3],
    }
    for name, module in modules.items():
        module.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
    network(*inputs(golden))
    for name, found in seen.items():
        expected = golden[f"inter_{name}"]
        if found.ndim == 4:
            found = found.unflatten(0, (2, 3)).transpose(1, 2)
        assert distance(found, expected) < TOLERANCE, name


class NormPerFrame(ClipNorm):
    def forward(self, frames: torch.Tensor, count: int) -> torch.Tensor:
        return super().forward(frames, 1)


class NoPositions(FramePositions):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens


@pytest.mark.parametrize("mistake", ["norm per frame", "no positions", "mask last", "audio backwards", "late step"])
@torch.inference_mode()
def test_a_wrong_convention_is_seen(mistake: str) -> None:
    """The numbers would not pass with any of the usual mistakes: each moves them by far more than the tolerance."""
    golden = Golden("latentsync_unet_tiny_stage2")
    network = by_rule(LatentSyncUNet(UNetShape(TINY)))
    sample, step, audio = inputs(golden)
    for module in network.modules():
        if mistake == "norm per frame" and type(module) is ClipNorm:
            module.__class__ = NormPerFrame
        if mistake == "no positions" and type(module) is FramePositions:
            module.__class__ = NoPositions
    if mistake == "mask last":
        sample = torch.cat([sample[:, :4], sample[:, 5:], sample[:, 4:5]], dim=1)
    audio = audio.flip(1) if mistake == "audio backwards" else audio
    step += mistake == "late step"
    assert distance(network(sample, step, audio), golden["output"]) > 1000 * TOLERANCE


@needs_time
@torch.inference_mode()
def test_full_size() -> None:
    golden = Golden("latentsync_unet_full")
    with torch.device("meta"):
        network = LatentSyncUNet()
    tables = {
        name: FramePositions(tensor.shape[-1]).pe
        for name, tensor in network.state_dict().items()
        if name.endswith("pos_encoder.pe")
    }
    network.load_state_dict(rule_state(network) | tables, assign=True)
    assert distance(network.eval()(*inputs(golden)), golden["output"]) < TOLERANCE
