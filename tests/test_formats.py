"""Every line of docs/formats.md: what goes in, what comes out, and what is kept on the way."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image, ImageCms
from skimage.metrics import structural_similarity

from audio_processor import SAMPLE_RATE, load_audio, probe_audio
from tests.footage import (
    face_frame,
    lag_seconds,
    make_deep,
    make_portrait,
    make_sound,
    make_video,
    portrait,
    read_number,
    speech_like,
)
from utils.helpers import InputError
from utils.planes import plane_arrays
from video.priority import priorities
from video_processor import Frame, LightLevels, Patch, VideoReader, VideoWriter, fitted_frames, probe_video

RATES = (
    *(Fraction(24000, 1001), Fraction(24), Fraction(25), Fraction(30000, 1001)),
    *(Fraction(30), Fraction(50), Fraction(60000, 1001), Fraction(60)),
)
LIGHT = LightLevels(((0.708, 0.292), (0.17, 0.797), (0.131, 0.046), (0.3127, 0.329)), (0.005, 1000.0), (1000, 400))
MASTERING = "G(8500,39850)B(6550,2300)R(35400,14600)WP(15635,16450)L(10000000,50)"
PQ, HLG, BT2020 = 16, 18, 9
SHAPE = Fraction(16, 15)


def read_all(path: Path) -> list[Frame]:
    with VideoReader(path) as reader:
        return list(reader)


def times(path: Path) -> list[float]:
    return [frame.time for frame in read_all(path)]


def copy_video(source: Path, target: Path, patch: Patch | None = None, **options) -> VideoWriter:
    with VideoWriter(target, probe_video(source), **options) as writer:
        for frame in fitted_frames(source):
            writer.write(frame, patch)
    return writer


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((image.astype(float) - reference) ** 2)))


# Times


@pytest.mark.parametrize("fps", RATES, ids=str)
@pytest.mark.parametrize(("source", "target"), [("in.mp4", "out.mkv"), ("in.mkv", "out.mp4"), ("in.avi", "out.mov")])
def test_frame_rates_are_kept_exactly(tmp_path: Path, fps: Fraction, source: str, target: str):
    codec = "mpeg4" if source.endswith("avi") else "libx264"
    clip = make_video(tmp_path / source, 0.5, fps, (64, 64), sound=False, codec=codec)

    copy_video(clip, tmp_path / target)

    after = probe_video(tmp_path / target)
    assert probe_video(clip).fps == after.fps == fps
    expected = np.arange(len(read_all(clip))) / float(fps)
    np.testing.assert_allclose(times(tmp_path / target), expected, atol=1e-6)


@pytest.mark.parametrize("source", ["in.mp4", "in.mkv"])
@pytest.mark.parametrize("target", ["out.mp4", "out.mkv", "out.webm"])
def test_variable_frame_times_are_kept_in_every_container(tmp_path: Path, source: str, target: str):
    stamps = [0.0, 0.021, 0.1, 0.154, 0.311, 0.35, 0.36, 0.5, 0.533, 0.9]
    clip = make_video(tmp_path / source, times=stamps, sound=False, size=(96, 80))

    copy_video(clip, tmp_path / target)

    before = times(clip)
    np.testing.assert_allclose(before, stamps, atol=6e-4 if source.endswith("mkv") else 1e-5)
    np.testing.assert_allclose(times(tmp_path / target), before, atol=1e-5 if target.endswith("mp4") else 6e-4)


def test_a_video_that_starts_late_is_counted_from_its_first_picture(tmp_path: Path):
    clip = make_video(tmp_path / "in.mkv", times=[1.0, 1.04, 1.08, 1.12], sound=False, size=(96, 80))

    np.testing.assert_allclose(times(clip), [0, 0.04, 0.08, 0.12], atol=1e-6)


# Interlaced


def make_interlaced(path: Path, codec: str = "libx264") -> Path:
    """A white bar that moves 8 px from field to field, upper field first."""
    # PyAV cannot mark a frame as interlaced, but a filter can.
    marker = av.filter.Graph()
    source = marker.add_buffer(width=256, height=128, format="yuv420p", time_base=Fraction(1, 25))
    marker.link_nodes(source, marker.add("setfield", "tff"), marker.add("buffersink")).configure()
    options = {"flags": "+ildct+ilme", **({"x264-params": "tff=1", "crf": "10"} if codec == "libx264" else {"b": "4M"})}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 256, 128, "yuv420p"
        for index in range(10):
            image = np.full((128, 256, 3), 40, np.uint8)
            for field in (0, 1):
                left = 16 + 8 * (2 * index + field)
                image[field::2, left : left + 24] = 220
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p", interpolation="POINT")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            marker.push(frame)
            container.mux(stream.encode(marker.pull()))
        container.mux(stream.encode(None))
    return path


def combing(image: np.ndarray) -> float:
    """Mean difference of each line from the mean of its neighbours: large where two fields are woven."""
    lines = image.astype(float).mean(axis=-1)
    return float(np.abs(lines[1:-1] - (lines[:-2] + lines[2:]) / 2)[4:-4].mean())


@pytest.mark.parametrize(("name", "codec"), [("in.mp4", "libx264"), ("in.mkv", "libx264"), ("in.mpg", "mpeg2video")])
def test_interlaced_video_is_deinterlaced_and_says_so(tmp_path: Path, name: str, codec: str):
    clip = make_interlaced(tmp_path / name, codec)
    with av.open(str(clip)) as container:
        woven = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]

    frames = read_all(clip)
    writer = copy_video(clip, tmp_path / "out.mp4")

    assert probe_video(clip).interlaced and any("interlaced" in note for note in writer.notes)
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(10) / 25, atol=1e-6)
    assert combing(frames[5].image) < 0.1 * combing(woven[5])
    assert not probe_video(tmp_path / "out.mp4").interlaced
    assert combing(read_all(tmp_path / "out.mp4")[5].image) < 0.12 * combing(woven[5])
    # The moment shown is that of the upper field.
    assert 16 + 80 - 3 <= np.flatnonzero(frames[5].image[64, :, 0] > 130)[0] <= 16 + 80 + 3


def test_progressive_video_is_not_touched(tmp_path: Path):
    clip = make_video(tmp_path / "in.mp4", 0.2, sound=False)

    assert not probe_video(clip).interlaced and not copy_video(clip, tmp_path / "out.mp4").notes


# More than 8 bits, HDR


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "out.webm"])
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_is_kept_in_ten_bits_with_its_tags_and_light_levels(tmp_path: Path, name: str, transfer: int):
    clip = make_deep(
        tmp_path / "in.mp4",
        transfer=transfer,
        options={"x265-params": f"log-level=none:master-display={MASTERING}:max-cll=1000,400", "crf": "10"},
    )

    writer = copy_video(clip, tmp_path / name)

    before, after = probe_video(clip), probe_video(tmp_path / name)
    assert before.light == LIGHT and before.is_hdr
    assert (after.pix_fmt, after.colour) == ("yuv420p10le", before.colour)
    assert (after.colour.matrix, after.colour.primaries, after.colour.transfer) == (BT2020, BT2020, transfer)
    assert any("HDR" in note for note in writer.notes)
    np.testing.assert_allclose(after.light.primaries, LIGHT.primaries, atol=1e-4)
    np.testing.assert_allclose(after.light.luminance, LIGHT.luminance, rtol=0.05)
    assert after.light.content == LIGHT.content
    # The gradient has more steps than 8 bits could show.
    luma = plane_arrays(read_all(tmp_path / name)[1].raw)[0][:50].mean(axis=0)
    original = plane_arrays(read_all(clip)[1].raw)[0][:50].mean(axis=0)
    assert np.abs(luma - original).mean() < 1.5


def test_h264_and_ffv1_keep_ten_bits_too_and_say_what_is_lost(tmp_path: Path):
    clip = make_deep(tmp_path / "in.mp4", options={"x265-params": f"log-level=none:master-display={MASTERING}"})

    assert not [note for note in copy_video(clip, tmp_path / "a.mp4", codec="h264").notes if "light" in note]
    assert [note for note in copy_video(clip, tmp_path / "b.mkv", codec="ffv1").notes if "light levels" in note]

    assert probe_video(tmp_path / "a.mp4").pix_fmt == probe_video(tmp_path / "b.mkv").pix_fmt == "yuv420p10le"
    assert probe_video(tmp_path / "a.mp4").light.luminance == pytest.approx(LIGHT.luminance)
    assert probe_video(tmp_path / "b.mkv").colour == probe_video(clip).colour
    for a, b in zip(read_all(clip), read_all(tmp_path / "b.mkv"), strict=True):
        np.testing.assert_array_equal(plane_arrays(a.raw)[0], plane_arrays(b.raw)[0])


@pytest.mark.parametrize("codec", ["auto", "ffv1"])
def test_a_patch_lands_in_hdr_with_its_colours(tmp_path: Path, codec: str):
    clip = make_deep(tmp_path / "in.mp4", options={"x265-params": "log-level=none", "crf": "8"})
    image = read_all(clip)[0].image
    patch = Patch(60, 80, image[80:180, 60:200], np.ones((100, 140), np.float32))

    copy_video(clip, tmp_path / "out.mkv", patch, codec=codec)

    difference = read_all(tmp_path / "out.mkv")[0].image.astype(int) - image
    assert np.abs(difference[80:180, 60:200]).mean() < 2.5
    assert np.abs(difference[80:180, 60:200].mean(axis=(0, 1))).max() < 0.5


def test_hdr_is_shown_to_the_networks_as_an_ordinary_picture(tmp_path: Path):
    # PQ: white paper at 203 cd/m2 has the signal 0.58, skin in its light about 0.5, black 0.
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt, context.color_trc = 96, 64, "yuv420p10le", PQ
        context.color_range, context.colorspace, context.color_primaries = 1, BT2020, BT2020
        frame = av.VideoFrame(96, 64, "yuv420p10le")
        luma, *chroma = plane_arrays(frame)
        for column, signal in enumerate((0.0, 0.5, 0.58, 1.0)):
            luma[:, column * 24 : column * 24 + 24] = round(64 + 876 * signal)
        for plane in chroma:
            plane[:] = 512
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    black, skin, white, lamp = read_all(tmp_path / "in.mkv")[0].image[32, 12::24, 1].astype(int)

    assert black <= 2 and 120 < skin < 165 and 170 < white < 215 and lamp >= 253


def test_twelve_bits_are_kept_by_hevc_and_ffv1_and_become_ten_elsewhere(tmp_path: Path):
    clip = make_deep(tmp_path / "in.mkv", "ffv1", "yuv422p12le")

    for name, codec, kept in (("a.mp4", "auto", True), ("b.mkv", "ffv1", True), ("c.mp4", "h264", False)):
        writer = copy_video(clip, tmp_path / name, codec=codec)
        assert probe_video(tmp_path / name).bits == (12 if kept else 10)
        assert any("12 bits a colour" in note for note in writer.notes) != kept
    np.testing.assert_array_equal(
        plane_arrays(read_all(clip)[0].raw)[1], plane_arrays(read_all(tmp_path / "b.mkv")[0].raw)[1]
    )


def test_dolby_vision_without_a_standard_picture_is_refused(tmp_path: Path):
    clip = make_deep(tmp_path / "in.mov", options={"x265-params": "log-level=none"})
    clip.write_bytes(clip.read_bytes().replace(b"hev1", b"dvh1"))

    with pytest.raises(InputError, match="Dolby Vision"):
        probe_video(clip)


def test_colours_that_no_conversion_fits_are_refused(tmp_path: Path):
    clip = make_deep(tmp_path / "in.mkv", "libx264", matrix=14)

    with pytest.raises(InputError, match="ICtCp"):
        probe_video(clip)


# Size, shape, turning, transparency


@pytest.mark.parametrize(
    ("name", "codec"), [("out.mp4", "auto"), ("out.mov", "hevc"), ("out.mkv", "auto")]
)
@pytest.mark.parametrize("rotation", [0, 90])
def test_the_shape_of_pixels_is_kept(tmp_path: Path, name: str, codec: str, rotation: int):
    source = make_video(tmp_path / "in.mp4", 0.2, size=(144, 176), rotation=rotation, sound=False, pixel_shape=SHAPE)

    copy_video(source, tmp_path / name, codec=codec)
    for refused, codec in (("out.webm", "auto"), ("out.mkv", "ffv1")):
        with pytest.raises(InputError, match="square"):
            VideoWriter(tmp_path / refused, probe_video(source), codec)

    info = probe_video(tmp_path / name)
    assert (info.width, info.height, info.rotation) == (144, 176, rotation)
    assert float(info.sample_aspect_ratio) == pytest.approx(16 / 15, rel=2e-3)


@pytest.mark.parametrize(("codec", "pix_fmt"), [("hevc", "yuv420p"), ("auto", "yuv420p10le")])
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.webm"])
def test_odd_sizes_with_every_encoder(tmp_path: Path, codec: str, pix_fmt: str, name: str):
    clip = make_deep(tmp_path / "in.mkv", "ffv1", pix_fmt, size=(161, 121))

    copy_video(clip, tmp_path / name, codec="auto" if name.endswith("webm") else codec)

    info = probe_video(tmp_path / name)
    cut = codec == "auto" and not name.endswith("webm")  # HEVC by default is for players, which want even sizes
    assert (info.width, info.height) == ((160, 120) if cut else (161, 121))
    original = read_all(clip)[0].image[: info.height, : info.width]
    assert psnr(read_all(tmp_path / name)[0].image, original) > 36


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root's threads may be real-time")
def test_no_encoder_leaves_threads_before_which_everything_else_waits(tmp_path: Path):
    """SVT-AV1 makes the one who opens it real-time, and whatever that starts afterwards."""
    clip = make_deep(tmp_path / "in.mkv", "ffv1")
    with VideoWriter(tmp_path / "out.webm", probe_video(clip)) as writer:
        for frame in fitted_frames(clip):
            writer.write(frame)
        during = set(priorities().values())
    assert during | set(priorities().values()) == {os.SCHED_OTHER}
    make_video(tmp_path / "made.webm", 0.2, codec="libsvtav1", sound=False)
    assert set(priorities().values()) == {os.SCHED_OTHER}


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_all_eight_ways_to_turn_a_video(tmp_path: Path, rotation: int, mirrored: bool):
    clip = make_video(tmp_path / "in.mp4", 0.12, size=(160, 120), rotation=rotation, mirrored=mirrored, sound=False)

    copy_video(clip, tmp_path / "out.mov", codec="hevc")

    info = probe_video(tmp_path / "out.mov")
    assert (info.width, info.height, info.rotation, info.mirrored) == (160, 120, rotation, mirrored)
    assert psnr(read_all(tmp_path / "out.mov")[0].image, face_frame(0.0, (160, 120))) > 30


def test_an_animated_gif_keeps_its_times(tmp_path: Path):
    pictures = [Image.fromarray(face_frame(i / 10, (160, 120))).quantize() for i in range(5)]
    delays = [80, 80, 200, 40, 120]
    pictures[0].save(tmp_path / "in.gif", save_all=True, append_images=pictures[1:], duration=delays)

    assert not copy_video(tmp_path / "in.gif", tmp_path / "out.mp4").notes

    np.testing.assert_allclose(times(tmp_path / "out.mp4"), np.cumsum([0, *delays[:-1]]) / 1000, atol=1e-6)
    assert psnr(read_all(tmp_path / "out.mp4")[0].image, np.asarray(pictures[0].convert("RGB"))) > 30


@pytest.mark.parametrize(
    ("name", "codec", "sound_codec"),
    [
        ("in.avi", "mpeg4", "pcm_s16le"),
        ("in.mov", "prores_ks", "pcm_s16le"),
        ("in.mov", "mjpeg", "aac"),
        ("in.mkv", "libx265", "flac"),
        ("in.mkv", "ffv1", "pcm_s16le"),
        ("in.ts", "libx264", "mp2"),
        ("in.mp4", "mpeg4", "aac"),
    ],
)
def test_common_kinds_of_video_go_in(tmp_path: Path, name: str, codec: str, sound_codec: str):
    pix_fmt = {"prores_ks": "yuv422p10le", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    looks = {"size": (160, 128), "numbered": True, "codec": codec, "pix_fmt": pix_fmt}
    clip = make_video(tmp_path / name, 0.6, sound_codec=sound_codec, **looks)

    frames = read_all(clip)

    assert [read_number(frame.image) for frame in frames] == list(range(15))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(15) / 25, atol=1e-6)
    reference = load_audio(make_sound(tmp_path / "same.wav", 0.6))
    # This older sound begins with what its encoder needs to start, and nothing says how much.
    assert abs(lag_seconds(load_audio(clip), reference)) < (0.06 if sound_codec == "mp2" else 0.005)


# Pictures


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_exif_orientations(tmp_path: Path, orientation: int):
    path = make_portrait(tmp_path / "me.jpg", (120, 160), orientation)

    assert psnr(read_all(path)[0].image, face_frame(0.0, (120, 160))) > 30


def test_pictures_of_every_kind_become_the_same_rgb(tmp_path: Path):
    image = Image.fromarray(face_frame(0.0, (160, 200)))
    alpha = image.copy()
    alpha.putalpha(255)
    grey = np.asarray(image.convert("L"))
    made = {
        "rgba.png": alpha,
        "palette.png": image.quantize(256),
        "lossless.webp": image,
        "pages.tif": image,
        "me.bmp": image,
        "cmyk.tif": image.convert("CMYK"),
        "me.avif": image,
    }
    for name, picture in made.items():
        extra = {"save_all": True, "append_images": [image.rotate(90)]} if name == "pages.tif" else {}
        picture.save(tmp_path / name, **({"lossless": True} if "webp" in name else {}), **extra)
        assert psnr(read_all(tmp_path / name)[0].image, np.asarray(image)) > 29, name
    for name, picture in {
        "grey.png": Image.fromarray(grey),
        "grey16.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "grey16.tif": Image.fromarray(grey.astype(np.uint16) * 257),
        "grey_alpha.png": Image.merge("LA", [Image.fromarray(grey), Image.fromarray(np.full_like(grey, 255))]),
    }.items():
        picture.save(tmp_path / name)
        assert psnr(read_all(tmp_path / name)[0].image, np.repeat(grey[..., None], 3, -1)) > 45, name


def test_a_picture_with_a_colour_profile_is_shown_in_its_colours(tmp_path: Path):
    image = Image.fromarray(face_frame(0.0, (160, 200)))
    lab = ImageCms.createProfile("LAB")
    image.save(tmp_path / "srgb.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    image.save(tmp_path / "broken.png", icc_profile=b"this is no profile" * 20)
    image.save(tmp_path / "strange.png", icc_profile=ImageCms.ImageCmsProfile(lab).tobytes())

    for name in ("srgb.png", "broken.png", "strange.png"):
        assert psnr(read_all(tmp_path / name)[0].image, np.asarray(image)) > 45, name


# Sound


def encode_sound(
    path: Path, codec: str, rate: int, layout: str = "mono", seconds: float = 1.0, delay: float = 0.0
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        context = stream.codec_context
        channels = len(av.AudioLayout(layout).channels)
        samples = np.repeat(speech_like(seconds, rate), channels)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
        frame.sample_rate, frame.pts = rate, round(delay * rate)
        container.start_encoding()
        resampler = av.AudioResampler(context.format.name, layout, rate, frame_size=context.frame_size or 1024)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout"),
    [
        ("s.wav", "pcm_s16le", 8000, "mono"),
        ("s.wav", "pcm_s24le", 192000, "stereo"),
        ("s.wav", "pcm_mulaw", 8000, "mono"),
        ("s.wav", "pcm_s16le", 48000, "7.1"),
        ("s.mp3", "libmp3lame", 8000, "mono"),
        ("s.mp3", "libmp3lame", 44100, "stereo"),
        ("s.m4a", "aac", 96000, "5.1"),
        ("s.m4a", "alac", 44100, "stereo"),
        ("s.aac", "aac", 44100, "mono"),
        ("s.ogg", "libopus", 48000, "stereo"),
        ("s.opus", "libopus", 24000, "5.1"),
        ("s.flac", "flac", 96000, "quad"),
        ("s.flac", "flac", 22050, "3.0"),
        ("s.mka", "ac3", 48000, "5.1"),
    ],
)
def test_sounds_of_every_kind_are_heard_and_written(tmp_path: Path, name: str, codec: str, rate: int, layout: str):
    sound = encode_sound(tmp_path / name, codec, rate, layout)
    reference = speech_like(1.0, SAMPLE_RATE)
    picture = make_portrait(tmp_path / "me.png", (96, 80))

    def check(path: Path) -> None:
        heard = load_audio(path)
        # Raw MP3 and AAC do not all tell how much their encoder added at the start.
        assert abs(lag_seconds(heard, reference)) < (0.08 if codec in ("libmp3lame", "aac", "ac3") else 0.01)
        assert heard.size / SAMPLE_RATE == pytest.approx(1.0, abs=0.12)
        assert 0.5 < np.std(heard) / np.std(reference) < 1.6

    assert probe_audio(sound).sample_rate in (rate, 48000)
    check(sound)
    for target in ("out.mp4", "out.mov", "out.mkv", "out.webm"):
        with VideoWriter(tmp_path / target, probe_video(picture), audio_from=sound) as writer:
            for frame in fitted_frames(picture, 1.0):
                writer.write(frame)
        check(tmp_path / target)
        assert abs(lag_seconds(load_audio(tmp_path / target), load_audio(sound))) < 0.01


def test_vorbis_is_copied_into_matroska_and_webm(tmp_path: Path):
    soundfile.write(tmp_path / "s.ogg", speech_like(1.0, 22050), 22050)
    picture = make_portrait(tmp_path / "me.png", (96, 80))

    for target in ("out.mkv", "out.webm", "out.mp4"):
        with VideoWriter(tmp_path / target, probe_video(picture), audio_from=tmp_path / "s.ogg") as writer:
            for frame in fitted_frames(picture, 1.0):
                writer.write(frame)
        assert probe_audio(tmp_path / target).codec == ("aac" if target.endswith("mp4") else "vorbis")


def make_tracks(path: Path, default: int | None, comment: int | None = None) -> Path:
    """A video with three sounds of different pitch; which one is marked as the default or as a commentary."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 80, "yuv420p"
        tracks = [container.add_stream("aac", rate=44100, layout="mono") for _ in range(3)]
        for index, track in enumerate(tracks):
            kinds = av.stream.Disposition
            marks = kinds(0)
            marks |= kinds.default if index == default else kinds(0)
            marks |= kinds.comment if index == comment else kinds(0)
            track.disposition = marks
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(face_frame(index / 25, (96, 80)), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for index, track in enumerate(tracks):
            tone = (8000 * np.sin(2 * np.pi * 300 * (index + 1) * np.arange(44100) / 44100)).astype(np.int16)
            for start in range(0, 44100, 1024):
                piece = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="s16", layout="mono")
                piece.sample_rate, piece.time_base, piece.pts = 44100, Fraction(1, 44100), start
                container.mux(track.encode(piece))
            container.mux(track.encode(None))
    return path


def pitch(path: Path) -> int:
    """Which track of `make_tracks` is heard: 0, 1 or 2."""
    spectrum = np.abs(np.fft.rfft(load_audio(path)[1600:14400]))
    return round(np.argmax(spectrum) * SAMPLE_RATE / 12800 / 300) - 1


@pytest.mark.parametrize(("default", "comment", "heard"), [(1, None, 1), (0, None, 0), (0, 0, 1), (2, 1, 2)])
def test_of_several_sounds_the_one_that_players_play_is_taken(
    tmp_path: Path, default: int, comment: int | None, heard: int
):
    clip = make_tracks(tmp_path / "in.mkv", default, comment)

    assert pitch(clip) == heard
    for target in ("out.mkv", "out.webm"):
        copy_video(clip, tmp_path / target, audio_from=clip)
        assert pitch(tmp_path / target) == heard


@pytest.mark.parametrize("source", ["in.mp4", "in.mkv", "in.mov"])
@pytest.mark.parametrize("target", ["out.mp4", "out.mov", "out.mkv", "out.webm"])
@pytest.mark.parametrize("delay", [0.3, -0.05])
def test_sound_that_starts_late_or_early_stays_in_step(tmp_path: Path, source: str, target: str, delay: float):
    # The pictures start at 0.2 s, so that a sound can start before them.
    stamps = [0.2 + index / 25 for index in range(25)]
    clip = make_video(tmp_path / source, times=stamps, size=(96, 80), sound_delay=0.2 + delay)
    reference = load_audio(make_sound(tmp_path / "same.wav", 1.0))

    copy_video(clip, tmp_path / target, audio_from=clip)

    assert lag_seconds(load_audio(clip), reference) == pytest.approx(delay, abs=0.004)
    assert lag_seconds(load_audio(tmp_path / target), reference) == pytest.approx(delay, abs=0.004)


# Quality


@pytest.mark.parametrize(
    ("name", "codec"), [("out.mp4", "h264"), ("out.mp4", "hevc"), ("out.webm", "auto"), ("deep.webm", "auto")]
)
def test_the_default_quality_is_visually_lossless(tmp_path: Path, name: str, codec: str):
    # A photograph that drifts slowly, with the fine noise that cameras have.
    random = np.random.default_rng(0)
    pix_fmt = "yuv420p10le" if name.startswith("deep") else "yuv420p"
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 384, 384, pix_fmt
        for index in range(12):
            image = portrait()[40 + index : 424 + index, 60 : 444] + random.normal(0, 1.5, (384, 384, 3))
            frame = av.VideoFrame.from_ndarray(np.clip(image, 0, 255).astype(np.uint8), format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    copy_video(source, tmp_path / name, codec=codec)

    pairs = list(zip(read_all(tmp_path / name), read_all(source), strict=True))[2:]
    assert min(psnr(a.image, b.image) for a, b in pairs) > 38
    similar = [structural_similarity(a.image, b.image, channel_axis=-1) for a, b in pairs]
    assert min(similar) > 0.97


def test_crf_makes_files_smaller_and_worse(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 0.5, sound=False)

    for codec, name in (("h264", "a.mp4"), ("hevc", "b.mp4"), ("auto", "c.webm")):
        sizes = []
        for crf in (4, 16, 40):
            copy_video(source, tmp_path / name, codec=codec, crf=crf)
            sizes.append((tmp_path / name).stat().st_size)
        assert sizes[0] > 1.3 * sizes[1] > 1.69 * sizes[2]


def test_hevc_is_tagged_as_apple_wants_it(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 0.2, sound=False)

    for name in ("out.mp4", "out.mov"):
        copy_video(source, tmp_path / name, codec="hevc")
        with av.open(str(tmp_path / name)) as container:
            assert container.streams.video[0].codec_context.codec_tag == "hvc1"


def test_pictures_smaller_than_any_encoder_takes_are_refused(tmp_path: Path):
    info = probe_video(make_video(tmp_path / "in.mp4", 0.12, size=(64, 8), sound=False))

    with pytest.raises(InputError, match="too small"):
        VideoWriter(tmp_path / "out.mp4", info)


def test_codecs_that_do_not_fit_are_refused(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 0.12, sound=False)

    for name, codec in (("out.webm", "hevc"), ("out.webm", "ffv1"), ("out.mov", "ffv1"), ("out.gif", "auto")):
        with pytest.raises(InputError):
            VideoWriter(tmp_path / name, probe_video(source), codec)


# Turning


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("in.mp4", "libx264", {"bf": "3", "x264-params": "open-gop=1"}),
        ("in.mkv", "libx264", {"bf": "3", "x264-params": "open-gop=1"}),
        ("in.mp4", "libx265", {"x265-params": "log-level=none:open-gop=1:bframes=3"}),
        ("in.ts", "libx264", {"bf": "2"}),
        ("in.avi", "mpeg4", {"bf": "2"}),
        ("in.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    ],
)
def test_no_jump_at_the_turning_point_whatever_the_order_in_the_file(
    tmp_path: Path, name: str, codec: str, options: dict
):
    looks = {"size": (160, 128), "numbered": True, "codec": codec, "keyframe_interval": 8, "options": options}
    clip = make_video(tmp_path / name, 1.2, sound=False, **looks)
    straight = read_all(clip)

    frames = list(fitted_frames(clip, 3.0, "bounce"))

    numbers = [read_number(frame.image) for frame in frames]
    assert numbers == [*range(30), *range(28, -1, -1), *range(1, 17)]
    np.testing.assert_allclose(np.diff([frame.time for frame in frames]), 1 / 25, atol=1e-4)
    # Going back shows exactly the pictures that going there has shown, so no step is larger than one of the video's.
    for frame in frames:
        np.testing.assert_array_equal(frame.image, straight[numbers[frame.index]].image)


def test_turning_a_variable_rate_clip_keeps_every_interval(tmp_path: Path):
    stamps = np.cumsum([0, 0.04, 0.01, 0.1, 0.033, 0.05, 0.2, 0.02])
    clip = make_video(tmp_path / "in.mkv", times=list(stamps), sound=False, numbered=True, size=(160, 128))

    frames = list(fitted_frames(clip, 1.2, "bounce"))

    there = np.diff([frame.time for frame in frames[:8]])
    back = np.diff([frame.time for frame in frames[7:15]])
    np.testing.assert_allclose(back, there[::-1], atol=1e-6)
    # Each picture that is shown on the way back is followed by the one that came before it.
    assert [read_number(frame.image) for frame in frames[:15]] == [*range(8), *range(6, -1, -1)]
