"""Movement tracks: closed lips, rest and co-articulation, and the command line that writes them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import app
from evaluation.reading import look
from faces.mouth_shape import SHAPE_POINTS, mouth_opening
from models.phonemes import SYMBOLS, Phoneme
from pipeline.track import REST, SHAPES, Cue, Track, frame_times, reduced, steady
from pipeline.tracks.assembling import Moved, assemble
from pipeline.tracks.capture import seen_track
from pipeline.tracks.decoding import decode
from pipeline.tracks.mouths import with_open_vowels
from pipeline.tracks.options import TrackOptions
from tests.conftest import REPO
from utils.config import load_config
from utils.helpers import InputError

A, D = SHAPES.index("A"), SHAPES.index("D")


def spoken(text: str, length: float = 0.08, start: float = 0.2) -> list[Phoneme]:
    """Sounds of equal length; an underscore is a pause."""
    places = [(symbol, start + number * length) for number, symbol in enumerate(text.split())]
    return [Phoneme(s, SYMBOLS.index(s), at, at + length) for s, at in places if s != "_"]


def track_of(text: str, length: float = 0.08, **options: float) -> Track:
    phonemes, chosen = spoken(text, length), TrackOptions(**options)
    duration = phonemes[-1].end + 0.3
    frames = len(frame_times(duration, chosen.fps))
    heard = Moved(*(np.full(frames, 0.3) for _ in range(3)))
    return assemble(duration, phonemes, np.zeros((frames, 10), np.float32), heard, chosen)


def nearest(track: Track, time: float) -> int:
    return int(np.abs(track.times - time).argmin())


@pytest.mark.parametrize("fps", [12, 24, 25, 29.97, 60, 120])
@pytest.mark.parametrize("length", [0.02, 0.05, 0.12])
def test_lips_close_at_every_bilabial_and_in_no_open_vowel(fps: float, length: float) -> None:
    track = track_of("b a m a p i b u m o t a", length, fps=fps)
    for phoneme in track.phonemes:
        frame = nearest(track, (phoneme.start + phoneme.end) / 2)
        if phoneme.symbol in "pbm":
            assert track.weights[frame, A] == 1 and track.curves.opening[frame] == 0
        elif phoneme.symbol == "a" and length * fps > 2.5:
            assert track.weights[frame, A] < 0.5 and track.curves.opening[frame] > 0.1


@pytest.mark.parametrize("wrong", [-0.03, -0.02, 0.02, 0.03])
def test_an_open_vowel_is_open_in_its_middle_where_times_are_found_a_little_wrong(wrong: float) -> None:
    edges = [0.2, 0.28, 0.34, 0.42, 0.48, 0.56, 0.7]
    parts = [(symbol, *pair) for symbol, pair in zip("mabɛpk", pairwise(edges), strict=True)]
    truth = [Phoneme(s, SYMBOLS.index(s), start, end) for s, start, end in parts]
    found = [Phoneme(p.symbol, p.id, p.start + wrong, p.end + wrong) for p in truth]
    heard = Moved(*(np.full(100, 0.3) for _ in range(3)))
    track = assemble(1.0, found, np.zeros((100, 10), np.float32), heard, TrackOptions(fps=100))
    for phoneme in truth[:-1]:
        middle = nearest(track, (phoneme.start + phoneme.end) / 2)
        around = slice(middle - 4, middle + 5)
        if phoneme.symbol in "mbp":
            assert track.curves.opening[around].min() <= 0.01 and track.weights[around, A].max() > 0.99
        else:
            assert track.weights[middle, A] <= 0.5 and track.curves.opening[middle] > 0.05


def test_a_vowel_too_short_to_be_spoken_takes_time_from_the_lips_beside_it() -> None:
    parts = [("k", 0.0, 0.1), ("ʌ", 0.1, 0.12), ("m", 0.12, 0.2), ("a", 0.2, 0.22), ("b", 0.22, 0.26), ("t", 0.26, 0.4)]
    said = [Phoneme(s, SYMBOLS.index(s), start, end) for s, start, end in parts]
    edges = [round(part.start, 3) for part in with_open_vowels(said)]
    assert edges == [0.0, 0.1, 0.15, 0.2, 0.22, 0.26]  # m keeps 50 ms, b has no more than that
    assert with_open_vowels(said[:1]) == said[:1]


def test_weights_are_shares_and_flow_into_each_other() -> None:
    for smooth in (0.0, 0.06, 0.2):
        weights = track_of("h a l o _ _ _ t a", smooth=smooth, fps=100).weights
        assert weights.min() >= 0 and np.allclose(weights.sum(axis=1), 1, atol=1e-6)
    hard, soft = (track_of("h a l o t a", smooth=smooth, fps=100).weights for smooth in (0.0, 0.1))
    assert np.abs(np.diff(soft, axis=0)).max() < 0.2 < 0.45 < np.abs(np.diff(hard, axis=0)).max()


def test_the_mouth_rests_where_nobody_speaks() -> None:
    track = track_of("a _ _ _ _ _ _ _ _ a")
    middle = nearest(track, 0.2 + 5 * 0.08)
    assert track.weights[middle, REST] == 1 and track.cues[2].shape == "X"
    assert all(abs(getattr(track.curves, name)[middle]) < 1e-6 for name in ("opening", "width", "protrusion", "jaw"))
    assert track.curves.opening[0] == 0 and track.weights[-1, REST] > 0.99


def test_consonants_take_the_mouth_of_their_neighbours() -> None:
    rounded, spread = track_of("u s u"), track_of("i s i")
    assert "B" not in [cue.shape for cue in rounded.cues] and "F" not in [cue.shape for cue in spread.cues]
    assert track_of("a f a").cues[2].shape == "G"


def test_strength_moves_the_mouth_less_or_more() -> None:
    still, half, usual, double = (track_of("h e l o", strength=x) for x in (0, 0.5, 1, 2))
    assert still.curves.opening.max() == 0 and (still.weights[:, REST] == 1).all()
    assert half.curves.opening.max() < usual.curves.opening.max() < double.curves.opening.max() <= 1


def test_shapes_that_are_not_drawn_are_replaced_as_rhubarb_does() -> None:
    cues = (Cue("X", 0, 1), Cue("G", 1, 2), Cue("H", 2, 3), Cue("C", 3, 4))
    assert reduced(cues, "GHX") == cues
    assert reduced(cues, "") == (Cue("A", 0, 2), Cue("C", 2, 4))


def test_a_mouth_too_short_to_be_seen_gives_its_time_away_but_lips_get_some() -> None:
    cues = steady([Cue("C", 0, 1), Cue("B", 1, 1.02), Cue("D", 1.02, 2), Cue("A", 2, 2.02), Cue("D", 2.02, 3)], 0.04)
    assert [cue.shape for cue in cues] == ["C", "D", "A", "D"]
    assert cues[1].start == pytest.approx(1.01) and cues[2].end - cues[2].start == pytest.approx(0.04)
    assert all(a.end == b.start for a, b in zip(cues, cues[1:], strict=False))


def test_sounds_are_found_in_what_is_heard() -> None:
    heard = np.full((60, 128), np.log(0.001), np.float16)
    for first, last, symbol in ((0, 10, ""), (10, 25, "m"), (25, 40, "a"), (40, 60, "")):
        heard[first:last, SYMBOLS.index(symbol)] = np.log(0.9)
    heard[30, SYMBOLS.index("k")] = np.log(0.95)  # one odd step
    found = decode(heard)
    assert [p.symbol for p in found] == ["m", "a"]
    assert found[0].start == pytest.approx(0.2) and found[0].end == found[1].start == pytest.approx(0.5)
    active = np.arange(60) < 21
    assert [p.symbol for p in decode(heard, active)] == ["m"]
    assert decode(heard[:0]) == ()


def test_a_vowel_that_is_shared_by_many_is_heard_beside_lips() -> None:
    heard = np.full((30, 128), np.log(1e-4), np.float16)
    for first, last, symbol in ((0, 6, ""), (6, 14, "b"), (18, 24, "t"), (24, 30, "")):
        heard[first:last, SYMBOLS.index(symbol)] = np.log(0.95)
    for symbol, chance in (("b", 0.3), ("a", 0.25), ("ʌ", 0.2), ("ɔ", 0.2)):  # no single vowel is likelier than b
        heard[14:18, SYMBOLS.index(symbol)] = np.log(chance)
    found = decode(heard)
    assert [p.symbol for p in found] == ["b", "a", "t"]
    assert found[1].start == pytest.approx(0.28, abs=0.011) and found[1].end == pytest.approx(0.36, abs=0.011)


@pytest.mark.parametrize("value", [{"fps": 0}, {"smooth": 1}, {"strength": -1}, {"extended": "Q"}])
def test_options_out_of_range_are_refused(value: dict) -> None:
    with pytest.raises(InputError, match="must be|no extended shape"):
        TrackOptions(**value).check()


def run(*arguments: object) -> int:
    return app.main(["--mode", "cli", *map(str, arguments)])


def test_the_command_line_writes_tracks_of_sound_text_and_both(
    lite_weights: Path, example_speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / name for name in ("a.tsv", "a.track.json")]
    assert run("--audio", example_speech, "--track", files[0], "--track", files[1], "--fps=50") == 0
    alone = json.loads(files[1].read_text(encoding="utf-8"))
    assert alone["source"] == "speech.wav" and len(alone["frames"]["opening"]) == int(50 * alone["duration"])
    assert files[0].read_text().startswith("0.00\tX\n") and {c["shape"] for c in alone["cues"]} <= set(SHAPES)

    text = "Mama, open the map."
    assert run("--text", text, "--lang=en", "--track", tmp_path / "t.track.json", "--track", tmp_path / "t.srt") == 0
    said = json.loads((tmp_path / "t.track.json").read_text(encoding="utf-8"))
    assert [word["word"] for word in said["words"]] == text.split()
    assert sum(cue["shape"] == "A" for cue in said["cues"]) == 5
    assert "sounds of the text" in capsys.readouterr().out
    before = (tmp_path / "t.srt").read_text()

    assert run("--text", text, "--track", tmp_path / "t.srt") == 2
    assert "exists" in capsys.readouterr().err and (tmp_path / "t.srt").read_text() == before


REFUSED = [
    (["--track", "a.tsv"], "Nothing to speak"),
    (["--audio", "{sound}", "--track", "a.unknown"], "one of the endings"),
    (["--audio", "{sound}", "--track", "a.vtt"], "is to hold words"),
    (["--audio", "{sound}", "--track", "{sound}", "--track-format=moho", "--overwrite"], "also an input"),
    (["--audio", "{sound}", "--track", "a.tsv", "--output", "a.mp4"], "leave --output out"),
    (["--audio", "{sound}", "--track", "a.tsv", "--fps=1000"], "must be 1 to 240"),
    (["--audio", "nothing.wav", "--track", "a.tsv"], "no file"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_what_cannot_be_done_is_one_sentence(
    arguments: list[str], said: str, example_speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(*(word.format(sound=example_speech) for word in arguments)) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and said in error and "\n" not in error
    assert not list(tmp_path.iterdir()) and (REPO / "examples" / "speech.wav").stat().st_size > 1000


SAID_IN = {"en": "My map.", "zh": "妈妈", "ja": "まま", "fr": "Ma maman.", "de": "Mama!", "es": "Mi mama."}


def test_a_list_of_lines_is_made_once_with_one_file_of_results(
    lite_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{text},{lang},out/{lang}.json" for lang, text in SAID_IN.items()]
    (tmp_path / "lines.csv").write_text("\n".join(["text,lang,track", *rows, "。,en,out/x.tsv"]), encoding="utf-8")
    assert run(f"--batch={tmp_path / 'lines.csv'}", "--fps=24") == 1
    told = json.loads((tmp_path / "lines.results.json").read_text(encoding="utf-8"))
    assert [row["status"] for row in told["rows"]] == ["done"] * 6 + ["failed"]
    assert told["rows"][0]["output"] == "out/en.json" and told["rows"][0]["words"] == 2
    assert "nothing that can be spoken" in told["rows"][6]["error"]
    for row, lang in zip(told["rows"], SAID_IN, strict=False):
        mouths = [cue["value"] for cue in json.loads((tmp_path / "out" / f"{lang}.json").read_text())["mouthCues"]]
        assert len(mouths) >= row["mouths"] and "A" in mouths and set("CDE") & set(mouths), lang  # m, and a vowel
    run(f"--batch={tmp_path / 'lines.csv'}", "--fps=24")
    again = json.loads((tmp_path / "lines.results.json").read_text(encoding="utf-8"))
    assert [row["status"] for row in again["rows"]] == ["skipped"] * 6 + ["failed"]
    assert "6 finished before" in capsys.readouterr().out


def test_the_mouth_that_a_video_shows_is_captured(talking_faces: Path, lite_weights: Path, tmp_path: Path) -> None:
    video = talking_faces / "test" / "videos" / "amrkh97_p110_0000.mp4"
    assert run("--video", video, "--track", tmp_path / "a.track.json", "--fps=30") == 0
    told = json.loads((tmp_path / "a.track.json").read_text(encoding="utf-8"))
    assert told["phonemes"] == [] and told["source"] == video.name
    opening = np.array(told["frames"]["opening"])
    # Another way to see it: the mesh's gap between the inner lips, read by the evaluation.
    seen = look(video, load_config(REPO / "model_config.yaml"))
    gap = mouth_opening(seen.points[:, SHAPE_POINTS])
    there = np.interp((np.arange(len(gap)) + seen.first) / 25, np.arange(len(opening)) / 30, opening)
    assert np.corrcoef(there, gap)[0, 1] > 0.9 and opening.max() > 0.15


@pytest.mark.parametrize("more", [["--audio", "x.wav"], ["--text", "Hello."]])
def test_a_video_and_speech_make_no_track_together(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--video", "x.mp4", "--track", "a.tsv", *more) == 2
    assert "leave --video or" in capsys.readouterr().err


def test_a_seen_mouth_gets_shapes_by_opening_and_width() -> None:
    opening = np.repeat([0.0, 0.9, 0.0, 0.2, 0.2], [30, 10, 3, 10, 10])
    width = np.repeat([0.0, 0.1, 0.0, -0.8, 0.4], [30, 10, 3, 10, 10])
    seen = Moved(opening, width, opening)
    track = seen_track(len(opening) / 30, np.zeros((63, 10)), np.ones(63), seen, TrackOptions())
    assert [cue.shape for cue in track.cues] == ["X", "D", "A", "F", "B"]
    assert np.allclose(track.weights.sum(axis=1), 1, atol=1e-6) and track.curves.protrusion[45] > 0.6
