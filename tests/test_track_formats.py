"""Each format of a track, read back by what is not ours: XML and JSON parsers, schemas, pandas, pysubs2."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import jsonschema_rs
import numpy as np
import pandas
import pysubs2
import pytest

from pipeline.track import Cue, Track
from pipeline.tracks.arkit import COLUMNS
from pipeline.tracks.formats import FORMATS, format_of, write_track
from pipeline.tracks.options import TrackOptions
from pipeline.tracks.rhubarb import drawn_cues
from pipeline.tracks.tables import read_track
from pipeline.tracks.visemes import ADOBE, OCULUS, VRM
from tests import footage
from tests.browser import browser, served
from tests.test_tracks import track_of
from utils.helpers import InputError
from voices.base import Word

SAID = "m a p _ _ _ o t s u _ _ f i l a"

# The rules of Rhubarb's README, "Output formats", and of CubismSpecs' motion3.json, as JSON schemas.
SECONDS = {"type": "number", "minimum": 0}
RHUBARB = {
    "type": "object",
    "required": ["metadata", "mouthCues"],
    "additionalProperties": False,
    "properties": {
        "metadata": {
            "type": "object",
            "required": ["soundFile", "duration"],
            "properties": {"soundFile": {"type": "string"}, "duration": SECONDS},
        },
        "mouthCues": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["start", "end", "value"],
                "additionalProperties": False,
                "properties": {"start": SECONDS, "end": SECONDS, "value": {"enum": list("ABCDEFGHX")}},
            },
        },
    },
}
COUNT = {"type": "integer", "minimum": 0}
MOTION = {
    "type": "object",
    "required": ["Version", "Meta", "Curves"],
    "additionalProperties": False,
    "properties": {
        "Version": {"const": 3},
        "Meta": {
            "type": "object",
            "required": ["Duration", "Fps", "CurveCount", "TotalSegmentCount", "TotalPointCount"],
            "additionalProperties": False,
            "properties": {
                "Duration": SECONDS, "Fps": SECONDS, "Loop": {"type": "boolean"},
                "AreBeziersRestricted": {"type": "boolean"}, "CurveCount": COUNT, "TotalSegmentCount": COUNT,
                "TotalPointCount": COUNT, "UserDataCount": COUNT, "TotalUserDataSize": COUNT,
            },
        },
        "Curves": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["Target", "Id", "Segments"],
                "additionalProperties": False,
                "properties": {
                    "Target": {"enum": ["Model", "Parameter", "PartOpacity"]}, "Id": {"type": "string"},
                    "Segments": {"type": "array", "minItems": 5, "items": {"type": "number"}},
                },
            },
        },
    },
}  # fmt: skip


def written(track: Track, folder: Path, name: str) -> Path:
    write_track(track, folder / name)
    return folder / name


@pytest.mark.parametrize("extended", ["GHX", "X", ""])
def test_rhubarbs_three_formats_say_the_same(tmp_path: Path, extended: str) -> None:
    track = track_of(SAID, extended=extended)
    told = json.loads(written(track, tmp_path, "a.json").read_text())
    jsonschema_rs.validate(RHUBARB, told)
    cues = [(c["start"], c["end"], c["value"]) for c in told["mouthCues"]]
    assert cues[0][0] == 0 and cues[-1][1] == told["metadata"]["duration"] == int(100 * track.duration) / 100
    assert all(a[1] == b[0] and a[2] != b[2] and a[1] > a[0] for a, b in zip(cues, cues[1:], strict=False))
    assert {value for _, _, value in cues} <= set("ABCDEF" + extended)

    root = ElementTree.parse(written(track, tmp_path, "a.xml")).getroot()
    assert root.tag == "rhubarbResult" and float(root.findtext("metadata/duration")) == told["metadata"]["duration"]
    assert [(float(c.get("start")), float(c.get("end")), c.text) for c in root.find("mouthCues")] == cues

    lines = [line.split("\t") for line in written(track, tmp_path, "a.tsv").read_text().splitlines()]
    assert [(float(time), shape) for time, shape in lines[:-1]] == [(start, value) for start, _, value in cues]
    assert lines[-1] == [f"{told['metadata']['duration']:.2f}", "X" if "X" in extended else "A"]


def test_a_mouth_between_those_that_are_far_apart() -> None:
    cues = [cue.shape for cue in drawn_cues(track_of("a p", 0.3))]
    assert cues == ["X", "D", "C", "A", "X"]


def test_moho_gets_a_mouth_for_each_change_of_frame(tmp_path: Path) -> None:
    head, *lines = written(track_of(SAID, fps=24), tmp_path, "a.dat").read_text().splitlines()
    frames, names = zip(*(line.split(" ") for line in lines), strict=True)
    assert head == "MohoSwitch1" and names[-1] == "rest" and {"MBP", "FV", "AI"} <= set(names)
    assert all(int(a) < int(b) for a, b in zip(frames, frames[1:], strict=False)) and int(frames[0]) == 1


def test_live_link_face_has_its_columns_and_times(tmp_path: Path) -> None:
    track = track_of(SAID, fps=60)
    table = pandas.read_csv(written(track, tmp_path, "a.csv"))
    assert list(table.columns) == ["Timecode", "BlendShapeCount", *COLUMNS] and len(COLUMNS) == 61
    assert len(table) == len(track) and (table.BlendShapeCount == 61).all()
    assert table.Timecode[0] == "00:00:00:00.000" and table.Timecode[61] == "00:00:01:01.000"
    values = table[list(COLUMNS)]
    assert values.to_numpy().min() >= 0 and values.to_numpy().max() <= 1
    assert values.EyeBlinkLeft.max() == 0 and values.JawOpen.max() > 0.3 and values.MouthPucker.max() > 0.3
    told = json.loads(written(track, tmp_path, "a.arkit.json").read_text())
    jaw = [frame["weights"][told["names"].index("jawOpen")] for frame in told["frames"]]
    assert np.allclose(jaw, values.JawOpen, atol=1e-4)


@pytest.mark.parametrize(("name", "columns"), [("a.oculus.csv", [f"viseme_{n}" for n in OCULUS]), ("a.vrm.csv", VRM)])
def test_weights_by_frame(tmp_path: Path, name: str, columns: list[str]) -> None:
    track = track_of(SAID)
    table = pandas.read_csv(written(track, tmp_path, name))
    assert list(table.columns) == ["frame", "time", *columns] and len(table) == len(track)
    values = table[list(columns)]
    assert values.to_numpy().min() >= 0 and values.to_numpy().max() <= 1.0001
    lips = [int(np.abs(track.times - (p.start + p.end) / 2).argmin()) for p in track.phonemes if p.symbol in "mp"]
    if name == "a.oculus.csv":
        assert np.allclose(values.sum(axis=1), 1, atol=2e-3) and (values.viseme_PP[lips] == 1).all()
    else:
        assert (values.iloc[lips].to_numpy() == 0).all() and values.aa.max() > 0.8 and values.ou.max() > 0.6


def test_keyframes_and_adobes_visemes(tmp_path: Path) -> None:
    track = track_of(SAID)
    keys = pandas.read_csv(written(track, tmp_path, "a.keyframes.csv"))
    assert list(keys.columns) == ["frame", "time", "opening", "width", "protrusion", "jaw", *"ABCDEFGHX"]
    assert np.allclose(keys.opening, track.curves.opening, atol=1e-4)
    visemes = pandas.read_csv(written(track, tmp_path, "a.visemes.csv"))
    assert set(visemes.viseme) <= set(ADOBE) and {"M", "Aa", "Oh", "W-Oo", "F", "L", "Neutral"} <= set(visemes.viseme)
    assert visemes.start[0] == 0 and visemes.end.iloc[-1] == pytest.approx(track.duration, abs=1e-3)


def test_live2d_motion_keeps_its_schema_counts_and_curve(tmp_path: Path) -> None:
    track = track_of(SAID)
    motion = json.loads(written(track, tmp_path, "a.motion3.json").read_text())
    jsonschema_rs.validate(MOTION, motion)
    points = {}
    for curve in motion["Curves"]:
        flat = curve["Segments"]
        assert all(kind == 0 for kind in flat[2::3])  # linear
        points[curve["Id"]] = np.array([flat[:2], *zip(flat[3::3], flat[4::3], strict=True)])
    meta = motion["Meta"]
    assert set(points) == {"ParamMouthOpenY", "ParamMouthForm"} and meta["CurveCount"] == 2
    assert meta["TotalPointCount"] == sum(map(len, points.values())) == meta["TotalSegmentCount"] + 2
    keys = points["ParamMouthOpenY"]
    assert np.abs(np.interp(track.times, keys[:, 0], keys[:, 1]) - track.curves.opening).max() < 0.011
    assert keys[-1, 0] == meta["Duration"] and len(keys) < len(track)


def test_the_whole_track_is_read_back_and_its_preview_is_one_page(tmp_path: Path) -> None:
    track = replace(track_of(SAID), peaks=(0.0, 0.5, 1.0), words=(Word("</script>", 0.2, 0.4, 2, False),))
    again = read_track(written(track, tmp_path, "a.track.json"))
    assert again.cues == tuple(Cue(c.shape, round(c.start, 4), round(c.end, 4)) for c in track.cues)
    assert [p.id for p in again.phonemes] == [p.id for p in track.phonemes] and again.peaks == track.peaks
    assert again.words == track.words
    assert np.allclose(again.weights, track.weights, atol=1e-4) and again.options == track.options
    page = written(track, tmp_path, "a.html").read_text(encoding="utf-8")
    told = re.search(r'<script type="application/json" id="track">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(told) == json.loads((tmp_path / "a.track.json").read_text(encoding="utf-8"))
    assert "src=" not in page and "http" not in page  # it asks nobody for anything


def test_words_with_their_times(tmp_path: Path) -> None:
    track = track_of("h a i b o b")
    words = (Word("Hi", 0.2, 0.44), Word("Bob <3", 0.44, 0.68), Word("再", 0.7, 0.8, 1, False), Word("见", 0.8, 0.9, 1))
    track = type(track)(**{**vars(track), "words": words})
    srt = pysubs2.load(str(written(track, tmp_path, "a.srt")))
    assert [event.plaintext for event in srt] == [word.text for word in words] and srt[0].end == srt[1].start == 440
    text = written(track, tmp_path, "a.vtt").read_text(encoding="utf-8")
    assert text.startswith("WEBVTT\n\n00:00:00.200 --> 00:00:00.680\nHi <00:00:00.440>Bob &lt;3\n")
    assert "再<00:00:00.800>见" in text and len(pysubs2.SSAFile.from_string(text, format_="vtt")) == 2


CUES = """
const done = arguments[0], video = document.querySelector("video"), element = document.querySelector("track");
const text = (cue) => cue.getCueAsHTML().textContent;
const times = (cue) => [...cue.getCueAsHTML().childNodes].filter((node) => node.target).map((node) => node.data);
element.track.oncuechange = () => done({
  state: element.readyState, shown: [...element.track.activeCues].map(text),
  cues: [...element.track.cues].map((cue) => [cue.startTime, cue.endTime, text(cue), times(cue)]),
});
element.onload = () => video.play();
element.onerror = () => done({state: element.readyState});
element.track.mode = "showing";
"""


def test_a_browser_shows_the_words_of_a_video(tmp_path: Path) -> None:
    said = (Word("Hi", 0.2, 0.44), Word("Bob <3 & you", 0.44, 0.68))
    words = (*said, Word("再", 1.2, 1.3, 1, False), Word("见", 1.3, 1.4, 1))
    written(replace(track_of("h a i b o b"), words=words), tmp_path, "a.vtt")
    footage.make_sound(tmp_path / "a.wav", 2.0)
    page = '<meta charset="utf-8"><video src="a.wav" muted><track kind="captions" srclang="en" src="a.vtt"></video>'
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    with served(tmp_path) as address, browser() as driver:
        driver.get(f"{address}/page.html")
        told = driver.execute_async_script(CUES)
    assert told["state"] == 2  # loaded, not failed
    assert told["cues"] == [
        [0.2, 0.68, "Hi Bob <3 & you", ["00:00:00.440"]],
        [1.2, 1.4, "再见", ["00:00:01.300"]],
    ]
    assert told["shown"] == ["Hi Bob <3 & you"]  # while it plays


def test_the_longest_ending_counts_and_a_name_wins(tmp_path: Path) -> None:
    named = {"a.CSV": "live-link", "a.oculus.csv": "oculus", "x.motion3.json": "live2d", "x.y.json": "rhubarb-json"}
    assert {name: format_of(Path(name)).name for name in named} == named
    assert format_of(Path("x.txt"), "moho").name == "moho"
    for path, name in (("x.txt", None), ("x.tsv", "nothing")):
        with pytest.raises(InputError, match="use one of"):
            format_of(Path(path), name)
    assert len({ending for entry in FORMATS.values() for ending in entry.endings}) >= len(FORMATS)
    assert TrackOptions().extended == "GHX"
