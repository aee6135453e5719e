"""The public SyncNet with random weights: its layers, its sound features, its search, and files that do not fit."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.syncnet import PUBLIC_SHIFT, PublicSyncNet, public_offset_search
from tests.footage import speech_like
from tests.published import Golden, by_rule, distance, needs_published
from tests.test_engine_weights import RunsCode
from utils.helpers import InputError

pytest.importorskip("python_speech_features")
from evaluation.sync import PublicJudge, mfcc  # noqa: E402


@pytest.fixture(scope="module")
def net() -> PublicSyncNet:
    torch.manual_seed(0)
    return PublicSyncNet().eval()


def test_size_and_names_are_those_of_the_public_file(net: PublicSyncNet) -> None:
    state = net.state_dict()
    assert len(state) == 102
    assert sum(p.numel() for p in net.parameters()) == 13_631_616
    assert {name.split(".")[0] for name in state} == {"netcnnaud", "netfcaud", "netcnnlip", "netfclip"}
    # Numbers in a name count every layer of the original, pooling and ReLU too.
    assert state["netcnnaud.18.weight"].shape == (512, 256, 5, 4)
    assert state["netcnnlip.0.weight"].shape == (96, 3, 5, 7, 7)
    assert state["netcnnlip.18.weight"].shape == (512, 256, 1, 6, 6)
    assert state["netfclip.3.weight"].shape == state["netfcaud.3.weight"].shape == (1024, 512)


@torch.inference_mode()
def test_clips_and_windows_agree(net: PublicSyncNet) -> None:
    frames = torch.randint(0, 256, (8, 3, 224, 224), dtype=torch.uint8)
    sound = torch.randn(13, 32)
    seen, heard = net.embed_video(frames), net.embed_audio(sound)
    assert seen.shape == (3, 1024) and heard.shape == (4, 1024)
    window = frames[1:6].float().permute(1, 0, 2, 3)[None]
    assert torch.allclose(seen[1:2], net.visual(window), atol=1e-3)
    assert torch.allclose(heard[2:3], net.audio(sound[None, None, :, 8:28]), atol=1e-3)


def smooth(length: int, seed: int = 0) -> torch.Tensor:
    """Embeddings (n, 64) of length 10 that change slowly."""
    noise = torch.randn(length + 4, 64, generator=torch.Generator().manual_seed(seed))
    return 10 * F.normalize(noise.unfold(0, 5, 1).mean(-1), dim=-1)


@pytest.mark.parametrize("shift", [-9, -1, 0, 4])
def test_search_finds_the_offset(shift: int) -> None:
    """Frame i of the picture shows what is heard at frame i + shift."""
    track = smooth(140)
    found = public_offset_search(track[20 + shift : 120 + shift], track[20:120])
    assert found.offset == shift
    # Frames whose sound lies outside count as far away, hence more than nothing.
    assert found.distance == pytest.approx(0.0 if shift == 0 else 10 * abs(shift) / 100, abs=0.02)
    assert found.confidence > 5


def test_search_is_the_field_s_definition() -> None:
    """LSE-D is the least, LSE-C the median minus the least of the mean distances at 31 shifts, zeros at the ends."""
    seen, heard = smooth(30, 1), smooth(30, 2)
    padded = np.pad(heard.numpy(), ((PUBLIC_SHIFT, PUBLIC_SHIFT), (0, 0)))
    means = [np.linalg.norm(seen.numpy() - padded[s : s + 30], axis=1).mean() for s in range(2 * PUBLIC_SHIFT + 1)]
    found = public_offset_search(seen, heard)
    assert found.distance == pytest.approx(min(means), abs=1e-3)
    assert found.confidence == pytest.approx(float(np.median(means)) - min(means), abs=1e-3)
    assert found.offset == int(np.argmin(means)) - PUBLIC_SHIFT


def test_sound_features_are_those_of_sixteen_bit_samples() -> None:
    samples = speech_like(1.0, 16000)
    found = mfcc(samples)
    assert found.shape == (13, 99) and found.dtype == np.float32
    # The first coefficient is the logarithm of the energy of 25 ms, by half of a spectrum, after pre-emphasis.
    emphasised = 32767 * (samples[:400] - 0.97 * np.append(0, samples[:399]))
    assert found[0, 0] == pytest.approx(np.log((emphasised.astype(np.float64) ** 2).sum() / 2), abs=0.02)
    louder = mfcc(2 * np.clip(samples, -0.5, 0.5))[0] - mfcc(np.clip(samples, -0.5, 0.5))[0]
    assert np.median(louder) == pytest.approx(np.log(4), abs=0.05)


@pytest.mark.parametrize("fault", ["missing tensor", "another network", "no table", "no weights", "code", "no file"])
def test_files_that_do_not_fit_are_refused(fault: str, net: PublicSyncNet, tmp_path: Path) -> None:
    path, state = tmp_path / "syncnet_v2.model", dict(net.state_dict())
    if fault == "missing tensor":
        torch.save({k: v for k, v in state.items() if k != "netfclip.3.bias"}, path)
    elif fault == "another network":
        torch.save(state | {"fc9.weight": torch.zeros(3)}, path)
    elif fault == "no table":
        torch.save(torch.zeros(3), path)
    elif fault == "no weights":
        path.write_text("not a checkpoint")
    elif fault == "code":
        torch.save(state | {"more": RunsCode(tmp_path / "ran")}, path)
    with pytest.raises(InputError) as refused:
        PublicJudge(path)
    named = {"missing tensor": "netfclip.3.bias", "another network": "fc9.weight"}
    assert named.get(fault, "syncnet_v2.model") in str(refused.value) and not (tmp_path / "ran").exists()


def test_a_file_of_the_right_tensors_is_taken(net: PublicSyncNet, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "syncnet_v2.model")
    judge = PublicJudge(tmp_path / "syncnet_v2.model")
    heard = judge.hear(speech_like(1.0, 16000))
    assert heard.shape == (20, 1024)
    assert judge.compare(heard[4:14], heard, first=4).offset == 0
    with pytest.raises(InputError, match="ends before"):
        judge.compare(heard, heard, first=30)


@needs_published
@torch.inference_mode()
def test_numbers_of_the_original() -> None:
    """Towers, sound features, distances, offset, LSE-C and LSE-D as the original code computes them."""
    layers, clip = Golden("syncnet_joonson_nets"), Golden("syncnet_joonson_eval")
    net = by_rule(PublicSyncNet(), netfclip__3__weight=0.1, netfclip__3__bias=0.1)
    frames = layers.tensor("frames_bgr").permute(3, 0, 1, 2)[None].float()
    assert distance(net.visual(frames), layers["lip"]) < 5e-5
    assert distance(net.audio(layers.tensor("audio")), layers["aud"]) < 5e-5
    found = mfcc(clip["signal"] / np.float32(32768))
    assert np.abs(found.T - clip["mfcc"]).max() < 1e-4
    seen, heard, facts = clip.tensor("feat_lip"), clip.tensor("feat_aud"), clip.facts["feature_case"]
    result = public_offset_search(seen, heard)
    # The original prints the opposite sign.
    assert (-result.offset, result.distance, result.confidence) == pytest.approx(
        (facts["offset"], facts["min"], facts["conf"]), abs=1e-4
    )
    pictures = [cv2.resize(frame, (224, 224)) for frame in clip["frames_bgr"]]
    lips = net.embed_video(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))[:20]
    sounds = net.embed_audio(torch.from_numpy(np.ascontiguousarray(clip["mfcc"].T, np.float32)))[:20]
    assert distance(lips[: len(clip["lip"])], clip["lip"]) < 5e-5
    whole = public_offset_search(lips, sounds)
    assert whole.distance == pytest.approx(clip.facts["LSE_D_min_distance"], rel=1e-4)
    assert whole.confidence == pytest.approx(clip.facts["LSE_C_confidence"], rel=1e-3)
    assert -whole.offset == clip.facts["offset"]
