"""Wav2Lip against what the original code computed: network, sound, box, and the whole call; larger variants."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engines.wav2lip import faces
from engines.wav2lip.network import Layout, Wav2Lip, load_generator
from engines.wav2lip.sound import COLUMNS, MelTrack, mel_columns, start_columns
from tests.published import Golden, distance, key_list, needs_published, rule_state
from utils.helpers import InputError

GAIN = 2**0.5


def rule_weights(layout: Layout | None = None) -> dict[str, torch.Tensor]:
    return rule_state(Wav2Lip(layout), GAIN, output_block__1__weight=0.015)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Wav2Lip:
    """Through a file as of 2020: not a zip, `module.` before all names, the optimizer beside them."""
    path = tmp_path_factory.mktemp("weights") / "wav2lip.pth"
    state = {f"module.{name}": tensor for name, tensor in rule_weights().items()}
    content = {"state_dict": state, "optimizer": {"state": {}}, "global_step": 1, "global_epoch": 2}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return load_generator(path)


@needs_published
def test_tensors_are_those_of_the_published_file() -> None:
    listed, network = key_list("wav2lip_generator_96"), Wav2Lip()
    assert {name: list(tensor.shape) for name, tensor in network.state_dict().items()} == {
        name: shape for name, (shape, _) in listed["tensors"].items()
    }
    assert network.side == 96
    modules = dict(network.named_modules())
    for name, (kind, settings) in ((n, v) for n, v in listed["non_default_layers"].items() if n != "note"):
        layer = modules[name]
        assert type(layer).__name__ == kind
        assert list(layer.stride) == settings["stride"] and list(layer.padding) == settings["padding"], name
        assert list(layer.output_padding) == settings.get("output_padding", [0, 0]), name


@needs_published
@torch.inference_mode()
def test_forward(generator: Wav2Lip) -> None:
    golden = Golden("wav2lip_nets")
    mel, face = golden.tensor("mel"), golden.tensor("face")
    assert distance(generator(mel, face), golden["output"]) < 5e-5
    assert distance(generator(torch.zeros_like(mel), face), golden["output_zero_mel"]) < 5e-5
    assert distance(generator(mel, face.flip(1)), golden["output"]) > 0.01
    assert distance(generator(mel, torch.cat([face[:, 3:], face[:, :3]], dim=1)), golden["output"]) > 0.01


@needs_published
def test_sound() -> None:
    golden = Golden("wav2lip_mel")
    for case in ("a", "b"):
        samples = golden[f"{case}_signal"] / np.float32(32768)
        assert np.abs(mel_columns(samples, 0, len(MelTrack(samples))) - golden[f"{case}_mel"]).max() < 1e-5
    samples = golden["a_signal"] / np.float32(32768)
    parts = [mel_columns(samples, first, min(first + 37, 161)) for first in range(0, 161, 37)]
    assert np.abs(np.concatenate(parts, axis=1) - golden["a_mel"]).max() < 1e-5


@needs_published
def test_windows_of_frames() -> None:
    golden = Golden("wav2lip_mel")
    assert len(golden.facts["n_chunks"]) == 54
    for name, count in golden.facts["n_chunks"].items():
        length, fps = (float(part.strip("Tfps")) for part in name.split("_")[1:])
        ours = start_columns(np.arange(count) / fps, int(length))
        ours = ours if len(ours) == len(golden[name]) else np.concatenate([ours[:60], ours[-60:]])
        assert np.array_equal(ours, golden[name]), name


def test_a_sound_shorter_than_a_window_ends_in_silence() -> None:
    track = MelTrack(np.full(800, 0.5, np.float32))
    heard = track.frames(np.array([0.0, 3.0]))
    assert heard.shape == (2, 80, COLUMNS)
    assert (heard[:, :, len(track) :] == -4).all() and heard.max() > -4


@needs_published
@torch.inference_mode()
def test_the_whole_call(generator: Wav2Lip) -> None:
    golden, facts = Golden("wav2lip_pipeline"), Golden("wav2lip_pipeline").facts
    track = MelTrack(golden["signal"] / np.float32(32768))
    mel = torch.from_numpy(track.frames(np.arange(facts["n_chunks"]) / facts["fps"]))[:, None]
    out = []
    for index in range(facts["n_chunks"]):
        source = index % 7
        frame, box = golden["frames"][source], np.array(facts["detector_boxes_x1y1x2y2"][source])
        padded = golden["boxes_padded_y1y2x1x2"][source]
        assert faces.padded_box(box, frame.shape[:2]).tolist() == padded[[2, 0, 3, 1]].tolist()
        top, bottom, left, right = golden["boxes_smoothed_y1y2x1x2"][source]  # in use boxes are smoothed in another way
        crop = cv2.resize(frame[top:bottom, left:right], (96, 96))[None, ..., ::-1]
        given = faces.network_input(crop)
        if index == 0:
            assert np.abs(given[0].numpy() - golden["input0"]).max() < 1e-6
        picture = faces.pictures(generator(mel[index : index + 1], given))[0, ..., ::-1]
        pasted = frame.copy()
        pasted[top:bottom, left:right] = cv2.resize(picture, (right - left, bottom - top))
        out.append(pasted)
    difference = np.abs(np.stack(out).astype(int) - golden["out"])
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


LARGER = {
    256: Layout(
        ((16,), (32,) * 3, (64,) * 3, (128,) * 3, (256,) * 2, (512,) * 2, (512,) * 2, (512,) * 2),
        ((512,), (512,) * 2, (512,) * 2, (512,) * 2, (384,) * 2, (256,) * 2, (128,) * 2, (64,) * 2),
        last_kernel=4,
    ),
    384: Layout(
        ((16,), (32,) * 2, (64,) * 2, (64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2, (512,) * 2, (512,) * 2),
        ((512,), (512,) * 2, (512,) * 2, (256,) * 2, (256,) * 2, (128,) * 2, (64,) * 2, (64,) * 2, (32,) * 2),
    ),
}


@pytest.mark.parametrize("side", LARGER)
@torch.inference_mode()
def test_larger_variants_are_known_by_their_shapes(side: int, tmp_path: Path) -> None:
    path = tmp_path / "larger.pth"
    torch.save({"state_dict": Wav2Lip(LARGER[side]).state_dict()}, path)
    network = load_generator(path)
    assert network.side == side
    assert network(torch.zeros(1, 1, 80, 16), torch.zeros(1, 6, side, side)).shape == (1, 3, side, side)


def test_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="not of Wav2Lip"):
        load_generator(path)
    state = Wav2Lip().state_dict()
    del state["audio_encoder.4.conv_block.0.bias"]
    torch.save(state, path)
    with pytest.raises(InputError, match="does not hold audio_encoder.4.conv_block.0.bias"):
        load_generator(path)
