"""Tables (CSV) that programs and spreadsheets read, and the whole track as JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from models.phonemes import SYMBOLS, Phoneme
from pipeline.track import SHAPES, Cue, Curves, Track
from pipeline.tracks.mouths import FEATURES
from pipeline.tracks.options import TrackOptions
from pipeline.tracks.visemes import OCULUS, VRM, adobe_visemes, oculus_weights, vrm_weights
from voices.base import Word


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(rows)


def _by_frame(track: Track, path: Path, names: Sequence[str], values: np.ndarray) -> None:
    """A row for each frame: its number, its time and values (F, V)."""
    rows = (
        [frame, f"{time:.4f}", *(f"{value:.4f}" for value in row)]
        for frame, (time, row) in enumerate(zip(track.times, values, strict=True))
    )
    _write(path, ["frame", "time", *names], rows)


def write_keyframes(track: Track, path: Path) -> None:
    """Lips, jaw and the weights of Rhubarb's shapes for each frame, for After Effects, Blender and spreadsheets."""
    curves = np.stack([getattr(track.curves, name) for name in FEATURES], axis=1)
    _by_frame(track, path, [*FEATURES, *SHAPES], np.concatenate([curves, track.weights], axis=1))


def write_oculus(track: Track, path: Path) -> None:
    """The 15 visemes of Oculus for each frame, named as avatars name them: viseme_sil, viseme_PP, ..."""
    _by_frame(track, path, [f"viseme_{name}" for name in OCULUS], oculus_weights(track))


def write_vrm(track: Track, path: Path) -> None:
    """VRM's vowels for each frame."""
    _by_frame(track, path, VRM, vrm_weights(track))


def write_adobe(track: Track, path: Path) -> None:
    """A row for each mouth: first frame, start, end and the name that Adobe Character Animator gives it."""
    rows = (
        [int(start * track.fps + 1e-6), f"{start:.3f}", f"{end:.3f}", name] for name, start, end in adobe_visemes(track)
    )
    _write(path, ["frame", "start", "end", "viseme"], rows)


def as_json(track: Track) -> dict:
    """The whole track as values that JSON knows; docs/animation.md describes them."""

    def spans(items: Iterable, name: str, value: str) -> list[dict]:
        return [
            {name: getattr(item, value), "start": round(float(item.start), 4), "end": round(float(item.end), 4)}
            for item in items
        ]

    frames = {name: np.round(getattr(track.curves, name), 4).tolist() for name in FEATURES}
    return {
        "duration": round(track.duration, 4),
        "fps": track.fps,
        "smooth": track.options.smooth,
        "strength": track.options.strength,
        "source": track.source,
        "peaks": list(track.peaks),
        "words": [
            span | {"sentence": word.sentence, "spaced": word.spaced}
            for span, word in zip(spans(track.words, "word", "text"), track.words, strict=True)
        ],
        "phonemes": spans(track.phonemes, "phoneme", "symbol"),
        "cues": spans(track.cues, "shape", "shape"),
        "shapes": list(SHAPES),
        "frames": {
            **frames,
            "weights": np.round(track.weights, 4).tolist(),
            "coefficients": np.round(track.shape, 4).tolist(),
        },
    }


def preview_page(track: Track) -> str:
    """A page that needs nothing else: an animated mouth, and the curves over the waveform of a sound chosen there."""
    page = (Path(__file__).parent / "preview.html").read_text(encoding="utf-8")
    told = json.dumps(as_json(track), ensure_ascii=False).replace("</", "<\\/")
    return page.replace("TRACK", told, 1)


def write_preview(track: Track, path: Path) -> None:
    """See `preview_page`."""
    path.write_text(preview_page(track), encoding="utf-8")


def read_track(path: Path) -> Track:
    """A track as `write_track_json` has written it."""
    told = json.loads(path.read_text(encoding="utf-8"))
    frames, ids = told["frames"], {symbol: number for number, symbol in enumerate(SYMBOLS)}
    return Track(
        told["duration"],
        TrackOptions(fps=told["fps"], smooth=told["smooth"], strength=told["strength"]),
        tuple(Phoneme(p["phoneme"], ids[p["phoneme"]], p["start"], p["end"]) for p in told["phonemes"]),
        tuple(Cue(c["shape"], c["start"], c["end"]) for c in told["cues"]),
        np.array(frames["weights"], np.float32),
        Curves(*(np.array(frames[name], np.float32) for name in FEATURES)),
        np.array(frames["coefficients"], np.float32),
        tuple(Word(w["word"], w["start"], w["end"], w["sentence"], w["spaced"]) for w in told["words"]),
        told["source"],
        peaks=tuple(told["peaks"]),
    )


def write_track_json(track: Track, path: Path) -> None:
    """See `as_json`."""
    path.write_text(json.dumps(as_json(track), ensure_ascii=False), encoding="utf-8")
