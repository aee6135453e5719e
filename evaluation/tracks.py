"""How exact movement tracks are: on synthesised speech whose phoneme times are known, and on real mouths.

    python -m evaluation.tracks timing                        # held-out voices, six languages
    python -m evaluation.tracks real --faces DIR              # opening against the mesh's, beside Rhubarb's rules
    python -m evaluation.tracks speed                         # ten minutes of sound: seconds and memory

`timing` speaks sentences that no network was trained on, with voices that none was trained on (espeak-ng, and Kokoro
where it is installed), and makes tracks of the sound alone and of the sound with its text. A boundary is where a mouth
begins; its error is the distance to the nearest place where the track begins the same mouth. A p, b or m is found where
the track closes the lips during it or within 40 ms; a closure is wrong where lips are closed (and not at rest) in the
middle of an open vowel of at least 40 ms; of a shorter one the middle lies within the opening.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

from data.synthesise import ESPEAK, KOKORO
from evaluation.clips import find_clips
from evaluation.tracks_real import measure_people, people_table
from evaluation.tracks_speed import measure_speed
from language_processor import LANGUAGES, LanguageProcessor, SpokenText
from models.phonemes import BILABIALS, Phoneme
from pipeline.track import REST, Track
from pipeline.tracks.maker import TrackMaker
from pipeline.tracks.mouths import chosen_shapes, cues_of, segments
from pipeline.tracks.options import TrackOptions
from utils.config import load_config
from utils.helpers import InputError, atomic_path, resolve_device
from voices.base import Speech
from voices.espeak import EspeakEngine
from voices.kokoro import KokoroEngine

SENTENCES = Path(__file__).parent / "sentences"
OPEN_VOWELS = frozenset("a ɑ ɑ̃ æ ɛ ɛ̃ ɔ ɔ̃ ɒ ʌ ɐ".split())
FPS = 100.0
NEAR_S = 0.04
CLOSED = 0.05  # opening below which lips count as closed


@dataclass(frozen=True)
class Found:
    """What became of the sounds of some sentences.

    Attributes:
        errors_ms: of each boundary.
        closed, bilabials: how many p, b and m have closed lips, of how many.
        wrong, vowels: how many open vowels have closed lips in their middle, of how many.
    """

    errors_ms: tuple[float, ...] = ()
    closed: int = 0
    bilabials: int = 0
    wrong: int = 0
    vowels: int = 0

    def __add__(self, other: Found) -> Found:
        return Found(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def as_numbers(self) -> dict[str, float]:
        """Medians and shares."""
        errors = np.array(self.errors_ms)
        return {
            "boundary_ms": float(np.median(errors)),
            "within_40_ms": float((errors <= 1000 * NEAR_S).mean()),
            "boundaries": len(errors),
            "closed": self.closed / max(self.bilabials, 1),
            "bilabials": self.bilabials,
            "wrong": self.wrong / max(self.vowels, 1),
            "vowels": self.vowels,
        }


def compare(track: Track, truth: Sequence[Phoneme]) -> Found:
    """Measure a track against what was really said when."""
    parts = segments(truth, track.duration)
    wanted = cues_of(parts, chosen_shapes(parts))
    starts = {shape: np.array([cue.start for cue in track.cues if cue.shape == shape]) for shape in "ABCDEFGHX"}
    errors = [1000 * float(np.abs(starts[cue.shape] - cue.start).min(initial=track.duration)) for cue in wanted[1:]]
    opening, times = track.curves.opening, track.times
    closed = count = wrong = vowels = 0
    for phoneme in truth:
        if phoneme.id in BILABIALS:
            near = (times >= phoneme.start - NEAR_S) & (times <= phoneme.end + NEAR_S)
            count += 1
            closed += bool((opening[near] <= CLOSED).any() and (track.weights[near, 0] > 0.5).any())
        elif phoneme.symbol in OPEN_VOWELS and phoneme.end - phoneme.start >= NEAR_S:
            middle = int(np.abs(times - (phoneme.start + phoneme.end) / 2).argmin())
            vowels += 1
            pressed, rests = track.weights[middle, 0] > 0.5, track.weights[middle, REST] > 0.5
            wrong += bool(pressed or (opening[middle] <= CLOSED and not rests))
    return Found(tuple(errors), closed, count, wrong, vowels)


def voices_of(language: str, weights: Path) -> Iterator[tuple[str, str, object]]:
    """Engine, voice and (sentence -> Speech) of all held-out voices of a language."""
    espeak, kokoro = EspeakEngine(), KokoroEngine(weights / "voices")
    for name in ESPEAK["val"]:
        yield "espeak-ng", name, lambda text, name=name: espeak.speak_variant(text, language, name)
    for name in KOKORO["val"].get(language, ()) if kokoro.missing() is None else ():
        yield "kokoro", name, lambda text, name=name: kokoro.speak_style(text, language, name, 1.0)


def timing(maker: TrackMaker, weights: Path, languages: Sequence[str], sentences: slice) -> Iterator[dict]:
    """A row for each language and engine."""
    options = TrackOptions(fps=FPS)
    for language in languages:
        texts = (SENTENCES / f"{language}.txt").read_text(encoding="utf-8").splitlines()[sentences]
        found: dict[str, dict[str, Found]] = {}
        for engine, _, speak in voices_of(language, weights):
            of_engine = found.setdefault(engine, {"sound": Found(), "text": Found()})
            for text in texts:
                speech = speak(text)
                for given in of_engine:
                    spoken = SpokenText(text, language) if given == "text" else None
                    of_engine[given] += compare(_track(maker, speech, spoken, options), speech.phonemes)
        for engine, of_engine in found.items():
            yield {"language": language, "voices": engine, **{g: f.as_numbers() for g, f in of_engine.items()}}


def _track(maker: TrackMaker, speech: Speech, spoken: SpokenText | None, options: TrackOptions) -> Track:
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "speech.wav"
        soundfile.write(sound, speech.samples, speech.rate)
        return maker.make(sound, spoken, options)


def timing_table(rows: Sequence[dict]) -> str:
    """For people."""
    lines = [
        "| Language | Voices | Given | Boundary, median | within 40 ms | p, b, m closed | open vowels closed |",
        "| --- " * 7 + "|",
    ]
    for row in rows:
        for given in ("sound", "text"):
            r = row[given]
            lines.append(
                f"| {LANGUAGES[row['language']]} | {row['voices']} | {given} | {r['boundary_ms']:.0f} ms | "
                f"{100 * r['within_40_ms']:.0f} % of {r['boundaries']} | "
                f"{100 * r['closed']:.0f} % of {r['bilabials']} | "
                f"{100 * r['wrong']:.1f} % of {r['vowels']} |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("timing", "real", "speed"))
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, default=list(LANGUAGES), metavar="CODE")
    parser.add_argument("--sentences", type=int, default=8, metavar="N", help="of each voice (%(default)s)")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first sentences (%(default)s)")
    parser.add_argument("--faces", type=Path, metavar="DIR", help="folder of videos, for real")
    parser.add_argument("--people", type=int, default=8, metavar="N", help="how many of them (%(default)s)")
    parser.add_argument("--persons", nargs="+", metavar="ID", help="these alone, as the manifest names them")
    parser.add_argument("--clips", type=int, default=1, metavar="N", help="of each person (%(default)s)")
    parser.add_argument("--minutes", type=float, default=10.0, help="of sound, for speed (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all numbers")
    parser.add_argument("--config", type=Path, default=Path("model_config.yaml"), help="settings (%(default)s)")
    args = parser.parse_args(arguments)
    try:
        result = _run(args)
        if args.json:
            with atomic_path(args.json) as path:
                path.write_text(json.dumps(result, indent=1), encoding="utf-8")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(args: argparse.Namespace) -> list[dict]:
    config = load_config(args.config)
    weights = config.inference.weights_dir.resolve()
    language = LanguageProcessor(weights, weights / config.size / "phonemes", own=config.language.engines)
    maker = TrackMaker(config, resolve_device("auto"), language)
    if args.what == "speed":
        result = measure_speed(maker, args.minutes)
        print(json.dumps(asdict(result)))
        return [asdict(result)]
    if args.what == "real":
        if args.faces is None:
            raise InputError("Real mouths need videos: give their folder with --faces.")
        clips = [c for c in find_clips(args.faces) if not args.persons or c.person in args.persons]
        rows = list(measure_people(maker, config, clips, args.people, args.clips))
        print(people_table(rows))
        return rows
    rows = []
    for row in timing(maker, weights, args.languages, slice(args.skip, args.skip + args.sentences)):
        rows.append(row)
        print(timing_table([row]).split("\n", 2)[2], flush=True)
    print("\n" + timing_table(rows))
    return rows


if __name__ == "__main__":
    sys.exit(main())
