"""Pictures that can be seen through: kept where the output can hold that, else put before a background."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import LipSyncPipeline
from pipeline.options import Options
from serving.http.forms import read_form
from serving.problems import Problem
from tests.footage import face_frame, make_sound, make_video
from tests.test_formats import psnr, read_all
from tests.tiny_weights import tiny_config
from utils.config import load_config
from utils.helpers import InputError
from video_processor import (
    Backdrop,
    FrameSequence,
    Patch,
    VideoReader,
    VideoWriter,
    fitted_frames,
    painted_frame,
    painted_info,
    probe_video,
)

SIZE = (160, 160)
MAGENTA, BLUE = (255, 0, 255), (48, 96, 255)
OUTSIDE, INSIDE = np.s_[:12, :12], np.s_[60:100, 60:100]


def cut_out(time: float = 0.0) -> np.ndarray:
    """The head in a disc with a soft rim, uint8 RGBA; what was cut away is still there, and is magenta."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    alpha = np.clip((76 - np.hypot(x - 80, y - 80)) * 40, 0, 255).astype(np.uint8)
    colours = face_frame(time, SIZE)
    colours[alpha == 0] = MAGENTA
    return np.dstack([colours, alpha])


def cut_out_video(path: Path, codec: str, pix_fmt: str) -> Path:
    with av.open(str(path), "w") as container:
        options = {"auto-alt-ref": "0", "crf": "10", "b": "0"} if codec == "libvpx-vp9" else {}
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pix_fmt
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(cut_out(index / 25), format="rgba")
            frame = frame.reformat(format=pix_fmt, dst_colorspace=1)
            frame.pts, frame.time_base, frame.colorspace = index, Fraction(1, 25), 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


SOURCES = {
    "portrait": lambda folder: save(folder / "in.png"),
    "prores": lambda folder: cut_out_video(folder / "in.mov", "prores_ks", "yuva444p10le"),
    "png": lambda folder: cut_out_video(folder / "in.mov", "png", "rgba"),
    "qtrle": lambda folder: cut_out_video(folder / "in.mov", "qtrle", "argb"),
    "vp9": lambda folder: cut_out_video(folder / "in.webm", "libvpx-vp9", "yuva420p"),
}


def save(path: Path) -> Path:
    Image.fromarray(cut_out()).save(path)
    return path


def written(source: Path, target: Path, codec: str = "auto", background: str | None = None) -> VideoWriter:
    backdrop = None if background is None else Backdrop.parse(background)
    with VideoWriter(target, probe_video(source), codec, backdrop=backdrop) as writer:
        for frame in fitted_frames(source, 0.1 if probe_video(source).is_image else None, backdrop=backdrop):
            writer.write(frame)
    return writer


def seen(path: Path, behind: tuple[int, int, int] = BLUE) -> np.ndarray:
    """The second frame as it looks before a colour."""
    with VideoReader(path, backdrop=Backdrop("own", behind)) as reader:
        return list(reader)[1].image


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize(("name", "codec"), [("out.webm", "auto"), ("out.mov", "auto"), ("out.mkv", "ffv1")])
def test_what_can_be_seen_through_stays_so(tmp_path: Path, kind: str, name: str, codec: str):
    source = SOURCES[kind](tmp_path)
    assert probe_video(source).transparent

    writer = written(source, tmp_path / name, codec)

    assert any(note.startswith("Transparency was kept") for note in writer.notes)
    assert probe_video(tmp_path / name).transparent
    image = seen(tmp_path / name)
    assert np.abs(image[OUTSIDE].astype(int) - BLUE).max() <= 3
    assert psnr(image[INSIDE], face_frame(0 if kind == "portrait" else 1 / 25, SIZE)[INSIDE]) > 30


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize(
    ("name", "background", "colour"),
    [("out.mp4", None, (255, 255, 255)), ("out.mp4", "#00b140", (0, 177, 64)), ("out.webm", "black", (0, 0, 0))],
)
def test_elsewhere_it_is_put_before_a_background(
    tmp_path: Path, kind: str, name: str, background: str | None, colour: tuple[int, int, int]
):
    source = SOURCES[kind](tmp_path)

    writer = written(source, tmp_path / name, background=background)

    assert any(f"show {background or 'white'}" in note for note in writer.notes)
    assert not probe_video(tmp_path / name).transparent
    image = seen(tmp_path / name)
    assert np.abs(image[OUTSIDE].astype(int) - colour).max() <= 6
    assert psnr(image[INSIDE], face_frame(0 if kind == "portrait" else 1 / 25, SIZE)[INSIDE]) > 30


def test_a_picture_can_be_the_background(tmp_path: Path):
    behind = np.zeros((50, 300, 3), np.uint8)
    behind[:, :150], behind[:, 150:] = (200, 30, 30), (30, 30, 200)
    Image.fromarray(behind).save(tmp_path / "behind.png")

    written(save(tmp_path / "in.png"), tmp_path / "out.mp4", background=str(tmp_path / "behind.png"))

    image = seen(tmp_path / "out.mp4").astype(int)
    assert np.abs(image[:8, :8] - (200, 30, 30)).max() < 12 and np.abs(image[:8, -8:] - (30, 30, 200)).max() < 12


@pytest.mark.parametrize(
    ("given", "said"), [("#12", "not known"), ("nowhere.png", "not known"), ("clip.mp4", "no picture")]
)
def test_what_is_no_background_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, said: str
):
    monkeypatch.chdir(tmp_path)
    make_video(Path("clip.mp4"), 0.1, size=(64, 64), sound=False)

    with pytest.raises(InputError, match=said):
        Options(background=given).check()


def test_a_client_names_no_file_as_background(tmp_path: Path):
    picture = save(tmp_path / "in.png")

    assert read_form({"background": "#00B140"}).background == "#00B140"
    with pytest.raises(Problem, match="background"):
        read_form({"background": str(picture)})


def test_what_was_cut_away_is_not_found_in_the_file(tmp_path: Path):
    """Neither as hidden colour, nor as its shine at the rim, where pixels share their colour."""
    written(save(tmp_path / "in.png"), tmp_path / "out.webm")

    with av.open(str(tmp_path / "out.webm")) as container:  # FFmpeg's own decoder shows what is hidden
        hidden = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    magenta = (hidden[..., 0] > 200) & (hidden[..., 1] < 80) & (hidden[..., 2] > 200)
    assert not magenta.any()


def test_painted_pictures_are_written_with_their_opacity(tmp_path: Path):
    info = painted_info(Path("painted"), *SIZE, fps=12, transparent=True)
    with VideoWriter(tmp_path / "out.webm", info, audio_from=make_sound(tmp_path / "s.wav", 0.5)) as writer:
        for index in range(6):
            writer.write(painted_frame(cut_out(index / 12), index, 12))

    made = probe_video(tmp_path / "out.webm")
    assert made.transparent and made.fps == 12 and made.has_audio
    times = [frame.time for frame in read_all(tmp_path / "out.webm")]
    assert times == pytest.approx([i / 12 for i in range(6)], abs=1e-3)
    assert psnr(seen(tmp_path / "out.webm")[INSIDE], face_frame(1 / 12, SIZE)[INSIDE]) > 30


def test_a_cut_out_portrait_speaks_and_stays_cut_out(tmp_path: Path, tiny_weights: Path):
    portrait = cut_out()
    portrait = np.asarray(Image.fromarray(portrait).resize((320, 320)))
    Image.fromarray(portrait).save(tmp_path / "in.png")
    lip_sync = LipSyncPipeline.load(load_config(tiny_config(tmp_path, tiny_weights)), torch.device("cpu"))
    speech, options = make_sound(tmp_path / "speech.wav", 0.3), Options(steps=1)

    kept = lip_sync.run(tmp_path / "in.png", speech, tmp_path / "kept.webm", options)
    pictures = lip_sync.run(tmp_path / "in.png", speech, tmp_path / "kept.zip", options)
    flat = lip_sync.run(tmp_path / "in.png", speech, tmp_path / "flat.mp4", replace(options, background="#3060ff"))

    assert kept.generated and flat.generated == kept.generated
    first, second = seen(tmp_path / "kept.webm"), seen(tmp_path / "flat.mp4")
    for image in (first, second):
        assert np.abs(image[OUTSIDE].astype(int) - BLUE).max() <= 6
    with zipfile.ZipFile(tmp_path / "kept.zip") as archive:
        names = archive.namelist()
        picture = np.asarray(Image.open(io.BytesIO(archive.read(names[1]))))
    assert len(names) == pictures.frames == kept.frames and pictures.generated == kept.generated
    assert np.array_equal(picture[..., 3], portrait[..., 3]) and any("PNG sequence" in n for n in pictures.notes)
    opaque = portrait[..., 3] == 255
    assert psnr(picture[..., :3][opaque], first[opaque]) > 30
    # The mouth is drawn into both: the lower half of the face is not that of the portrait.
    assert all(psnr(image[150:220, 120:200], portrait[150:220, 120:200, :3]) < 33 for image in (first, second))


@pytest.mark.parametrize(("rotation", "mirrored"), [(0, False), (90, False), (180, True), (270, False)])
def test_a_png_sequence_shows_frames_as_a_player_does(tmp_path: Path, rotation: int, mirrored: bool):
    source = make_video(tmp_path / "in.mp4", 0.2, size=(120, 160), rotation=rotation, mirrored=mirrored, sound=False)
    patch = Patch(30, 40, np.full((20, 24, 3), (200, 10, 60), np.uint8), np.ones((20, 24), np.float32))
    with FrameSequence(tmp_path / "out.zip", probe_video(source)) as writer:
        for frame in fitted_frames(source):
            writer.write(frame, patch)

    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == [f"{index:05d}.png" for index in range(5)]
        picture = np.asarray(Image.open(io.BytesIO(archive.read("00003.png"))))
    expected = read_all(source)[3].image.copy()
    expected[40:60, 30:54] = (200, 10, 60)
    assert np.abs(picture[..., :3].astype(int) - expected).max() <= 2 and picture[..., 3].min() == 255
