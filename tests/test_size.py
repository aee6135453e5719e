"""Other sizes, players' levels, and bit rates that follow the source."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import LipSyncPipeline
from pipeline.options import Options
from serving.http.forms import openapi_body, read_form
from serving.problems import Problem
from tests.footage import face_frame, make_portrait, make_sound, make_video
from tests.test_formats import psnr, read_all
from tests.tiny_weights import tiny_config
from utils.config import load_config
from utils.helpers import InputError
from video_processor import Size, VideoReader, VideoWriter, fitted_frames, moved, probe_video


def resized(source: Path, target: Path, size: Size, **options: object) -> VideoWriter:
    with VideoWriter(target, probe_video(source, size=size), **options) as writer:
        for frame in fitted_frames(source, 0.2, size=size):
            writer.write(frame)
    return writer


@pytest.mark.parametrize("rotation", [0, 90, 180])
@pytest.mark.parametrize(
    ("given", "expected"), [("160", (160, 120)), ("400", (400, 300)), ("100x100", (100, 100)), (None, (320, 240))]
)
def test_videos_come_out_in_the_size_asked_for(
    tmp_path: Path, rotation: int, given: str | None, expected: tuple[int, int]
):
    source = make_video(tmp_path / "in.mp4", 0.2, size=(320, 240), rotation=rotation)

    writer = resized(source, tmp_path / "out.mp4", Size.parse(given))

    made = probe_video(tmp_path / "out.mp4")
    assert (made.width, made.height, made.rotation) == (*expected, rotation)
    assert [f.time for f in read_all(tmp_path / "out.mp4")] == [f.time for f in read_all(source)]
    assert any("320x240 was brought to" in note for note in writer.notes) == (given is not None)
    image = read_all(tmp_path / "out.mp4")[0].image.astype(int)
    inner = image
    if given == "100x100":  # 100x75 within bars
        assert max(image[:10].max(), image[-10:].max()) < 12
        inner = image[12:87] if rotation in (0, 270) else image[13:88]  # chroma is shared by two rows as stored
    reference = np.asarray(Image.fromarray(face_frame(0.0, (320, 240))).resize(inner.shape[1::-1], Image.BOX))
    assert psnr(inner[3:-3, 3:-3], reference[3:-3, 3:-3]) > 26


@pytest.mark.parametrize("text", ["12", "0x720", "10x10", "big", "1280x", "99999", "-5"])
def test_sizes_that_cannot_be_are_refused(text: str):
    with pytest.raises(InputError, match="size"):
        Options(size=text).check()


def test_a_point_moves_with_the_picture():
    assert moved((320, 240), (640, 480), (320, 240)) == (160, 120)
    assert moved((320, 240), (640, 480), (100, 100)) == (50, 50)
    assert moved((0, 0), (640, 480), (100, 100)) == (0, 12.5)


def test_a_large_portrait_becomes_a_video_that_phones_play(tmp_path: Path, tiny_weights: Path):
    make_portrait(tmp_path / "in.png", (600, 800))
    config = load_config(tiny_config(tmp_path, tiny_weights))
    assert config.inference.still_side == 1920
    config = config.model_copy(update={"inference": config.inference.model_copy(update={"still_side": 480})})
    lip_sync = LipSyncPipeline.load(config, torch.device("cpu"))
    speech = make_sound(tmp_path / "speech.wav", 0.2)

    options = Options(steps=1, face="point:300,380")
    summary = lip_sync.run(tmp_path / "in.png", speech, tmp_path / "out.mp4", options)

    made = probe_video(tmp_path / "out.mp4")
    assert (made.width, made.height) == (360, 480) and summary.generated
    assert any("600x800" in note for note in summary.notes)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.profile == "High"
    assert level(tmp_path / "out.mp4") <= 30


def level(path: Path) -> int:
    """The level of an H.264 file, ten times as it is written (31: 3.1), from the decoder's configuration record."""
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.extradata[3]


@pytest.mark.parametrize(("size", "most"), [((320, 240), 13), ((640, 480), 30), ((1280, 720), 31), ((1920, 1080), 40)])
def test_the_level_of_h264_is_no_higher_than_the_size_needs(tmp_path: Path, size: tuple[int, int], most: int):
    make_portrait(tmp_path / "in.png", size)

    resized(tmp_path / "in.png", tmp_path / "out.mp4", Size())

    assert level(tmp_path / "out.mp4") <= most


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "auto"), ("a.mp4", "hevc"), ("a.webm", "auto")])
def test_the_quality_auto_makes_files_about_as_large_as_the_source(tmp_path: Path, name: str, codec: str):
    source = noisy_video(tmp_path / "in.mp4", crf=30)
    sizes = {}
    for crf in (16, "auto"):
        with VideoWriter(tmp_path / name, probe_video(source), codec, crf) as writer:
            for frame in fitted_frames(source):
                writer.write(frame)
        sizes[crf] = (tmp_path / name).stat().st_size

    assert sizes["auto"] < 2 * source.stat().st_size < sizes[16]
    with VideoReader(source) as a, VideoReader(tmp_path / name) as b:
        likeness = [psnr(x.image, y.image.astype(float)) for x, y in zip(a, b, strict=True)]
    assert np.mean(likeness) > 30


def noisy_video(path: Path, crf: int) -> Path:
    """Two seconds of a head with grain, coded coarsely: like most of what phones send on."""
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for index in range(50):
            image = face_frame(index / 25, (320, 240)) + random.normal(0, 8, (240, 320, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.clip(image, 0, 255).astype(np.uint8))))
        container.mux(stream.encode(None))
    return path


def test_auto_is_a_quality_for_clients_too():
    assert read_form({"crf": "auto"}).crf == "auto" and read_form({"crf": "20", "size": "1280"}).crf == 20
    for wrong in ("best", "60", "-1"):
        with pytest.raises(Problem, match="The field 'crf' cannot"):
            read_form({"crf": wrong})
    told = openapi_body()["content"]["multipart/form-data"]["schema"]["properties"]["crf"]["anyOf"]
    assert {"const": "auto", "type": "string"} in told and {"maximum": 51, "minimum": 0, "type": "integer"} in told
    with pytest.raises(InputError, match="0 to 51 or auto"):
        Options(crf="best").check()
