"""MuseTalk 1.5 against what the original code computed: network, latents, box, mask, and the whole call."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from engines import hearing
from engines.hearing import WhisperStates
from engines.musetalk import faces
from engines.musetalk.network import Painter, load_unet, make_unet, row_positions
from engines.vae import drawn_by, make_vae, to_tensor
from tests.published import (
    Golden,
    by_rule,
    distance,
    key_list,
    needs_published,
    needs_time,
    published_whisper,
    rule_state,
)
from utils.helpers import InputError

pytestmark = needs_published

TINY, TINY_VAE = (32, 64, 64, 96), (32, 32, 64, 64)
TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Painter:
    """Through the file as it is published: a bare table."""
    path = tmp_path_factory.mktemp("weights") / "unet.pth"
    torch.save(rule_state(make_unet(TINY)), path)
    return Painter(load_unet(path), by_rule(make_vae(TINY_VAE)))


def test_tensors_are_those_of_the_published_file() -> None:
    listed = key_list("musetalk_v15_unet")
    with torch.device("meta"):
        unet = make_unet()
    assert {name: list(tensor.shape) for name, tensor in unet.state_dict().items()} == {
        name: shape for name, (shape, _) in listed["tensors"].items()
    }
    eps = {module: norm["eps"] for norm in listed["norms"] if norm["kind"] == "GroupNorm" for module in norm["modules"]}
    assert {name: m.eps for name, m in unet.named_modules() if isinstance(m, nn.GroupNorm)} == eps


def test_another_network_is_named(tmp_path: Path) -> None:
    path = tmp_path / "unet.pth"
    torch.save(rule_state(make_vae(TINY_VAE)), path)
    with pytest.raises(InputError, match="does not hold conv_in.bias.* more; it holds what the network does not know"):
        load_unet(path)


def test_forward(painter: Painter) -> None:
    golden = Golden("musetalk_unet_tiny")
    assert np.abs(row_positions().numpy() - Golden("musetalk_positional_encoding")["table50"]).max() < 1e-5
    found = painter.paint(golden.tensor("input"), golden.tensor("audio"))
    assert distance(found, golden["output"]) < TOLERANCE
    assert distance(found, golden["output_without_pe"]) > 100 * TOLERANCE


@needs_time
def test_full_size() -> None:
    golden, unet = Golden("musetalk_unet_full"), make_unet()
    unet.load_state_dict(rule_state(unet), assign=True)
    found = Painter(unet.eval(), make_vae(TINY_VAE)).paint(golden.tensor("input"), golden.tensor("audio"))
    assert distance(found, golden["output"]) < TOLERANCE


def nearly_equal(pictures: torch.Tensor, expected_bgr: np.ndarray) -> bool:
    """At most one grey level, on less than 1 % of the values: what lies at a half is rounded either way."""
    difference = np.abs(pictures.numpy()[..., ::-1].astype(int) - expected_bgr)
    return difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_latents(painter: Painter) -> None:
    golden, noise = Golden("musetalk_latents"), drawn_by(5)
    face = to_tensor(golden["crop_bgr"][None, ..., ::-1])
    assert distance(face, golden["full"]) < 1e-5
    assert distance(painter.see(face, noise), golden["latents"]) < TOLERANCE
    assert nearly_equal(painter.decode(golden.tensor("decode_in")), golden["decode_out_bgr"])
    upside_down = painter.see(face.flip(2), drawn_by(5))
    assert distance(upside_down, golden["latents"]) > 100 * TOLERANCE


def test_box() -> None:
    compared = 0
    for case in Golden("musetalk_box").facts["cases"]:
        if case["bbox_shift"] or case["detector_box"] is None:
            continue
        points = np.trunc(case["landmarks68"])
        if points[:, 0].min() < 0:
            continue  # theirs takes the detector's box there, and so its whole face; ours goes on beyond the picture
        assert list(faces.face_box(points, 360)) == case["box_v15_extra_margin10"]
        compared += 1
    assert compared >= 4
    assert faces.face_box(np.ones((68, 2)), 360) is None


def test_blend() -> None:
    golden = Golden("musetalk_blend")
    box, around = tuple(golden.facts["box"]), tuple(golden.facts["expanded_box"])
    assert faces.expanded(box) == around
    assert np.array_equal(faces._grow_kernel(), np.array(golden.facts["kernel_dilate"]))
    parsed = faces.jaw(golden["labels"])
    assert np.array_equal(parsed, golden["parse_jaw"])
    mask = faces.cut_jaw(parsed, box, around)
    assert np.array_equal(mask, golden["mask_before_blur"])
    soft = faces.softened(mask)
    assert np.array_equal(soft, golden["mask_soft"])
    x0, y0, x1, y1 = box
    opacity = soft[y0 - around[1] : y1 - around[1], x0 - around[0] : x1 - around[0], None] / 255
    out = golden["frame"].copy()
    out[y0:y1, x0:x1] = np.round(out[y0:y1, x0:x1] * (1 - opacity) + golden["face"] * opacity)
    assert np.abs(out.astype(int) - golden["out"]).max() <= 1


def test_the_whole_call(painter: Painter) -> None:
    golden, facts = Golden("musetalk_pipeline"), Golden("musetalk_pipeline").facts
    heard = WhisperStates(published_whisper(), hearing.MUSETALK, golden["signal"] / np.float32(32768))
    audio = heard.frames(np.arange(facts["n_out"]) / facts["fps"])
    assert distance(audio[[0, -1]], golden["chunks"]) < TOLERANCE
    noise, seen = drawn_by(9), []
    for box, frame, expected in zip(facts["boxes_before_margin"], golden["frames"], golden["crops"], strict=True):
        x0, y0, x1, y1 = box
        crop = cv2.resize(frame[y0 : y1 + faces.MARGIN, x0:x1], expected.shape[:2], interpolation=cv2.INTER_LANCZOS4)
        assert np.abs(crop.astype(int) - expected).max() <= 1
        seen.append(painter.see(to_tensor(expected[None, ..., ::-1]), noise))
    seen = torch.cat(seen)
    assert distance(seen, golden["latents"]) < TOLERANCE
    order = [*range(5), *range(4, 0, -1)]
    painted = painter.paint(seen[order], torch.from_numpy(audio))
    assert distance(painted, golden["pred_latents"]) < TOLERANCE
    assert nearly_equal(painter.decode(painted), golden["decoded"])


@pytest.mark.parametrize("mistake", ["upper half hidden", "colours swapped", "halves swapped", "sound late"])
def test_a_wrong_convention_is_seen(mistake: str, painter: Painter) -> None:
    """The numbers would not pass with any of the usual mistakes: each moves them by far more than the tolerance."""
    golden, facts = Golden("musetalk_pipeline"), Golden("musetalk_pipeline").facts
    heard = WhisperStates(published_whisper(), hearing.MUSETALK, golden["signal"] / np.float32(32768))
    audio = heard.frames((np.arange(2) + (mistake == "sound late")) / facts["fps"])
    faces_seen, noise = to_tensor(golden["crops"][:2, ..., ::-1]), drawn_by(9)
    if mistake == "upper half hidden":
        hidden = painter.see(faces_seen.flip(2), noise).flip(2)
        seen = torch.cat([hidden[:, :4], painter.see(faces_seen, noise)[:, 4:]], dim=1)
    else:
        seen = torch.cat([painter.see(face[None], noise) for face in faces_seen])
    if mistake == "colours swapped":
        seen = painter.see(faces_seen.flip(1), drawn_by(9))
    elif mistake == "halves swapped":
        seen = seen.roll(4, 1)
    found = painter.paint(seen, torch.from_numpy(audio))
    assert distance(found, golden["pred_latents"][:2]) > 100 * TOLERANCE
