"""LatentSync's crop, mask, inputs, steps and pictures, against what the original code computed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from engines import hearing
from engines.hearing import WhisperStates
from engines.latentsync import faces
from engines.latentsync.sampling import Sampler, latent_mask, scheduler
from engines.latentsync.unet import LatentSyncUNet, UNetShape
from engines.vae import drawn_by, make_vae, to_tensor
from tests.published import Golden, by_rule, distance, needs_published, published_whisper

pytestmark = needs_published

BROWS_AND_NOSE = ([43, 48, 49, 51, 50], [101, 102, 103, 104, 105], [74, 77, 83, 86])


def three_points(landmarks: np.ndarray) -> np.ndarray:
    """The originals' points (3, 2) of InsightFace's 106."""
    return np.stack([np.round(landmarks[part].astype(np.float64).mean(0)) for part in BROWS_AND_NOSE])


def few_differ(found: np.ndarray, expected: np.ndarray) -> bool:
    """At most one grey level, on less than 1 % of the values."""
    difference = np.abs(found.astype(int) - expected)
    return difference.max() <= 1 and (difference > 0).mean() < 0.01


@pytest.mark.parametrize("side", [256, 512])
def test_crop(side: int) -> None:
    golden = Golden("latentsync_affine")
    facts = golden.facts["geometry"][f"res{side}"]
    assert list(faces.canvas_size(side)) == facts["canvas_wh"]
    bias = golden[f"res{side}_bias"]
    for index, landmarks in enumerate(golden[f"res{side}_landmarks106"]):
        points = three_points(landmarks)
        assert np.array_equal(points, golden[f"res{side}_points3"][index])
        plain = golden[f"res{side}_matrix_nosmooth"][index]
        found = faces.align_three(points, side)
        assert np.abs(found[:, :2] - plain[:, :2]).max() < 2e-4
        # Theirs is smoothed by a fifth of the frame before; ours is smoothed later, with all of the matrix.
        before = bias[index - 1] if index else bias[0]
        own = (bias[index] - 0.2 * before) / 0.8
        assert np.abs(found[:, 2] - plain[:, 2] - own).max() < 2e-4
    for index in (0, 3):
        canvas = faces.cut_canvas(
            golden[f"res{side}_frame{index}"], golden[f"res{side}_matrix"][index], faces.canvas_size(side)
        )
        rows = 1 if side == 256 else 4
        assert few_differ(canvas[::rows], golden[f"res{side}_canvas{index}"])
        assert few_differ(
            faces.square(canvas, side)[:: 2 * rows if side == 512 else 1], golden[f"res{side}_face{index}"]
        )


def test_mask() -> None:
    golden = Golden("latentsync_mask")
    repainted = np.unpackbits(golden["mask256"]).reshape(256, 256) == 1
    assert np.array_equal(faces.keep_mask(256) == 0, repainted)
    assert set(np.unique(faces.keep_mask(256))) == {0.0, 1.0}
    assert np.array_equal(np.round(faces.keep_mask(512) * 255), golden["mask512"])
    for side in (256, 512):
        small = latent_mask(torch.from_numpy(faces.keep_mask(side)))
        assert np.allclose(small.numpy(), golden[f"latent_mask_{side // 8}"], atol=1e-6)


def test_steps_of_noise() -> None:
    golden, ddim = Golden("latentsync_pipeline"), scheduler()
    ddim.set_timesteps(20)
    assert ddim.timesteps.tolist() == golden.facts["timesteps"]
    for step, value in golden.facts["alphas_cumprod"].items():
        assert float(ddim.alphas_cumprod[int(step)]) == pytest.approx(value, rel=1e-5)


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    side = Golden("latentsync_pipeline").facts["resolution"]
    unet = by_rule(LatentSyncUNet(UNetShape((32, 64, 64, 96))))
    return Sampler(unet, by_rule(make_vae((32, 32, 64, 64))), torch.from_numpy(faces.keep_mask(side)))


@pytest.fixture(scope="module")
def heard() -> torch.Tensor:
    golden = Golden("latentsync_pipeline")
    states = WhisperStates(published_whisper(), hearing.LATENTSYNC, golden["signal"] / np.float32(32768))
    return torch.from_numpy(states.frames(np.arange(golden.facts["n_output_frames"]) / 25))


def seen() -> torch.Tensor:
    return to_tensor(Golden("latentsync_pipeline")["faces"].transpose(0, 2, 3, 1))


def test_faces_of_a_video() -> None:
    """Frame to square, forwards and backwards over the video."""
    golden = Golden("latentsync_pipeline")
    side, order = golden.facts["resolution"], [*range(11), *range(10, 2, -1)]
    assert list(faces.canvas_size(side)) == golden.facts["box"][2:]
    for index, source in enumerate(order):
        matrix = golden["matrices"][index]
        canvas = faces.cut_canvas(golden["frames"][source], matrix, faces.canvas_size(side))
        assert few_differ(faces.square(canvas, side), golden["faces"][index].transpose(1, 2, 0))
        mine = faces.align_three(three_points(golden["landmarks106"][source]), side)
        assert np.abs(mine[:, :2] - matrix[:, :2]).max() < 2e-4


@torch.inference_mode()
def test_what_the_network_is_given(sampler: Sampler, heard: torch.Tensor) -> None:
    golden, noise = Golden("latentsync_pipeline"), drawn_by(1247)
    start = sampler.start(noise)
    assert torch.equal(start, golden.tensor("noise_init"))
    given = torch.cat([start.expand(-1, -1, 16, -1, -1), sampler.conditions(seen()[:16], noise)], dim=1)
    assert distance(given[0], golden["unet_input_step0_chunk0"]) < 5e-5
    assert distance(heard[0], golden["audio_chunk0_frame0"]) < 5e-5
    assert distance(heard[15], golden["audio_chunk0_last"]) < 5e-5
    audio = torch.stack([torch.zeros_like(heard[:16]), heard[:16]])
    assert distance(sampler.unet(given.expand(2, -1, -1, -1, -1), 951, audio), golden["noise_pred_step0_chunk0"]) < 5e-5


def latents(sampler: Sampler, heard: torch.Tensor, faces_seen: torch.Tensor) -> torch.Tensor:
    """The whole call: two chunks, with the noise in the originals' order."""
    noise = drawn_by(1247)
    start = sampler.start(noise)
    chunks = [slice(0, 16), slice(16, 19)]
    return torch.cat([sampler.latents(faces_seen[part], heard[part], start, noise) for part in chunks])


def test_the_whole_call(sampler: Sampler, heard: torch.Tensor) -> None:
    golden = Golden("latentsync_pipeline")
    found = latents(sampler, heard, seen())
    assert distance(found, golden["latents_final"]) < 1e-4
    pictures = sampler.combined(found, seen())
    assert np.abs(pictures.numpy() - golden["combined"].astype(np.float32)).max() < 2e-3


@pytest.mark.parametrize("mistake", ["mask inverted", "colours swapped", "sound late", "no squeeze"])
@torch.inference_mode()
def test_a_wrong_convention_is_seen(mistake: str, sampler: Sampler, heard: torch.Tensor) -> None:
    golden, given = Golden("latentsync_pipeline"), seen()
    if mistake == "mask inverted":
        sampler = Sampler(sampler.unet, sampler.vae, 1 - sampler.mask)
    elif mistake == "colours swapped":
        given = given.flip(1)
    elif mistake == "sound late":
        heard = heard.roll(1, 0)
    elif mistake == "no squeeze":
        given = torch.nn.functional.pad(given[:, :, 4:-4], (0, 0, 4, 4))
    noise = drawn_by(1247)
    start = sampler.start(noise).expand(-1, -1, 16, -1, -1)
    stacked = torch.cat([start, sampler.conditions(given[:16], noise)], dim=1).expand(2, -1, -1, -1, -1)
    audio = torch.stack([torch.zeros_like(heard[:16]), heard[:16]])
    found = sampler.unet(stacked, 951, audio)
    assert distance(found, golden["noise_pred_step0_chunk0"]) > 1000 * 5e-5


@pytest.mark.parametrize("case", ["a", "b"])
def test_paste_back(case: str) -> None:
    """The soft rectangle, made on the canvas, lies where theirs lies in the frame; so does the picture."""
    golden, side = Golden("latentsync_restore"), 256
    matrix, frame, face = golden[f"{case}_matrix"], golden[f"{case}_frame"], golden[f"{case}_face_uint8"]
    assert np.abs(faces.align_three(golden[f"{case}_points3"], side)[:, :2] - matrix[:, :2]).max() < 2e-4
    canvas = faces.unsquare(to_tensor(face[None]), side)[0]
    assert np.abs(canvas[:, ::8].numpy() - golden[f"{case}_face_resized_rows8"]).max() < 1e-4
    size, inverse = frame.shape[1::-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    soft = cv2.warpAffine(faces.rectangle_opacity(side), matrix, size, flags=inverse)
    picture = np.clip((canvas.permute(1, 2, 0).numpy() + 1) * 127.5, 0, 255)
    pasted = soft[..., None] * cv2.warpAffine(picture, matrix, size, flags=inverse) + (1 - soft[..., None]) * frame
    # Along the edges of the picture theirs goes on where ours, which is made on the canvas, ends softly.
    inside = np.s_[18:-18, 18:-18]
    difference = np.abs(soft - golden[f"{case}_soft"])[inside]
    assert difference.mean() < 0.02 and difference.max() < 0.35
    assert np.abs(pasted - golden[f"{case}_out"])[inside].mean() < 1.5


def test_what_is_painted_is_pasted() -> None:
    """Everything that the network paints within the soft rectangle is seen; brows and eyes stay the frame's own."""
    for side in (256, 512):
        opacity = faces.painted_opacity(side)
        width, height = faces.canvas_size(side)
        assert opacity.shape == (height, width)
        assert opacity[height // 2 : int(0.8 * height), width // 4 : 3 * width // 4].min() == 1.0
        assert not opacity[: int(0.3 * height)].any()
        assert not np.concatenate([opacity[[0, -1]].ravel(), opacity[:, [0, -1]].ravel()]).any()
