"""Measures what phonemes add to the sound, clean and with noise as loud as the speech.

    python -m evaluation.fusion --processed processed_dataset/test --faces raw_dataset/test/videos --json fusion.json

For each processed clip the speech model predicts the mouth's opening from the sound alone, from the phonemes alone and
from both; the table has its correlation with the true opening (mean over people) and the gate, the weight of the sound.
Phonemes are those of the clip's text where it is known, else what the recogniser hears in the clean sound. With noise
their order is known and their times are searched for in the noisy sound ("aligned in it"), as for a user who gives a
noisy sound and its text; "times known" are those of the clean sound.

With --faces, --videos clips are also made from the sound with babble at 0 dB, with and without phonemes, and the judge
compares the results with the clean sound. Videos stay in ``--output`` and are not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from audio_processor import SAMPLE_RATE
from data.dataset import Clip, clip_activity, clip_resting, clip_samples, clip_shape, clip_speech, load_clips
from data.phoneme_tracks import Noise, PhonemeTracks
from data.preprocess import FPS
from data.raw_clips import RawClip
from evaluation.clips import find_clips
from evaluation.reading import MIN_FRAMES, look
from evaluation.sync import Judge
from faces.mouth_shape import NUM_POINTS, MouthShape, mouth_opening
from models.audio_encoder import SpeechEncoder
from models.checkpoint import load_pretrained
from models.phoneme_recogniser import PhonemeRecogniser
from models.phonemes import SILENCE, Phoneme, phoneme_track
from models.voice_activity import VoiceActivity
from pipeline import LipSyncPipeline
from pipeline.options import Options
from training.speech import load_speech
from utils.config import Config, load_config
from utils.helpers import InputError, atomic_path, resolve_device
from voices.aligner import align_phonemes

NOISES = ("babble", "noise", "music")
LOUDEST = "babble"  # the hardest of them
CLEAN = "clean"
SOUND, TEXT, BOTH, BOTH_KNOWN = "sound alone", "text alone", "both, aligned in it", "both, times known"
_RULE = "| --- " * 4 + "|"


@dataclass(frozen=True)
class Heard:
    """A sound as the speech model takes it: features (T, 5, 384), activity (T,), phonemes in it."""

    features: np.ndarray
    activity: np.ndarray
    phonemes: tuple[Phoneme, ...]


class Listener:
    """Hears clips, clean and noisy.

    Args:
        config: where the weights are.
        clips: whose voices make up the babble.
    """

    def __init__(self, config: Config, clips: Sequence[Clip]) -> None:
        weights = config.inference.weights_dir
        self._encoder = SpeechEncoder.from_pretrained(weights / "whisper_tiny_en_encoder")
        self._activity = VoiceActivity.from_pretrained(weights / "voice_activity")
        self._recogniser = load_pretrained(PhonemeRecogniser, weights / config.size / "phonemes")
        self._tracks = PhonemeTracks(weights, weights / config.size / "phonemes")
        self._noise = Noise(clips)

    def clean(self, clip: Clip) -> Heard:
        """The clip's own sound, and its phonemes."""
        return Heard(np.asarray(clip_speech(clip)[0], np.float32), clip_activity(clip), _runs(self._tracks.of(clip)))

    def noisy_samples(self, clip: Clip, kind: str) -> np.ndarray:
        """The clip's sound with another one that is as loud, 0 dB."""
        return self._noise.mixed(clip_samples(clip), 0.0, kind, np.random.default_rng(zlib.crc32(clip.name.encode())))

    def noisy(self, samples: np.ndarray, phonemes: Sequence[Phoneme]) -> Heard:
        """A noisy sound, and where the phonemes are found in it."""
        features = self._encoder.features(samples)
        ids = [p.id for p in phonemes][: len(features)]
        found = align_phonemes(self._recogniser.posteriors(features), ids)
        return Heard(features, self._activity.track(samples), found)


def _runs(track: np.ndarray) -> tuple[Phoneme, ...]:
    """Phonemes of a track (T,) at 50 Hz."""
    edges = np.flatnonzero(np.diff(track.astype(int), prepend=-1, append=-1))
    spans = zip(edges, edges[1:], strict=False)
    return tuple(Phoneme("", int(track[a]), a / 50, b / 50) for a, b in spans if track[a] != SILENCE)


def measure_shapes(config: Config, clips: Sequence[Clip], listener: Listener) -> dict[str, dict[str, dict]]:
    """sound -> condition -> {"opening": mean correlation over people, "median": of people, "gate": mean}."""
    model = load_speech(config.inference.weights_dir / config.size / "generator")
    components = MouthShape.load(config.faces.mouth_shape_dir).components
    opening = mouth_opening(components.reshape(len(components), NUM_POINTS, 2))
    people: dict[tuple, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for clip in tqdm(clips, unit="clip"):
        shape, valid = clip_shape(clip)
        true = (shape @ opening)[valid]
        for sound, condition, heard, phonemes in _conditions(clip, listener):
            predicted, gate = _predict(model, clip, heard, phonemes, condition)
            pair = ((predicted @ opening)[valid], true)
            people[sound, condition][clip.person].append((*(x - x.mean() for x in pair), gate))
    return _summed(people)


def _conditions(clip: Clip, listener: Listener) -> Iterator[tuple[str, str, Heard, tuple[Phoneme, ...]]]:
    clean = listener.clean(clip)
    for condition in (SOUND, TEXT, BOTH):
        yield CLEAN, condition, clean, clean.phonemes
    for kind in NOISES:
        noisy = listener.noisy(listener.noisy_samples(clip, kind), clean.phonemes)
        yield kind, SOUND, noisy, ()
        yield kind, BOTH, noisy, noisy.phonemes
        yield kind, BOTH_KNOWN, noisy, clean.phonemes


@torch.inference_mode()
def _predict(
    model: torch.nn.Module, clip: Clip, heard: Heard, phonemes: Sequence[Phoneme], condition: str
) -> tuple[np.ndarray, float]:
    """Shapes (T, K) of the clip's frames, and the mean gate."""
    times = torch.from_numpy((np.arange(clip.frames, dtype=np.float32) + clip.offset) / FPS)[None]
    track = torch.from_numpy(phoneme_track(phonemes, len(heard.features)))[None]
    found = model(
        None if condition == TEXT else torch.from_numpy(heard.features)[None],
        None if condition == SOUND else track,
        times,
        activity=torch.from_numpy(heard.activity)[None],
        resting=torch.tensor([clip_resting(clip)]),
    )
    return found.shape[0].numpy(), float(found.gate.mean())


def _summed(people: dict[tuple, dict[str, list]]) -> dict[str, dict[str, dict]]:
    table: dict[str, dict[str, dict]] = defaultdict(dict)
    for (sound, condition), of_person in people.items():
        pairs = [[np.concatenate(side) for side in list(zip(*rows, strict=True))[:2]] for rows in of_person.values()]
        scores = [float(np.corrcoef(a, b)[0, 1]) if a.std() > 1e-6 else 0.0 for a, b in pairs]
        gates = [gate for rows in of_person.values() for *_, gate in rows]
        table[sound][condition] = {
            "opening": float(np.mean(scores)), "median": float(np.median(scores)), "gate": float(np.mean(gates))
        }  # fmt: skip
    return dict(table)


class Results:
    """Makes videos from noisy sounds and scores them against the clean ones.

    Args:
        config: of the program.
        folder: for sounds and videos.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        weights = config.inference.weights_dir
        self._config, self._folder = config, folder
        self._pipeline = LipSyncPipeline.load(config, resolve_device("auto"))
        self._judge = Judge(weights / config.size / "syncnet_judge", weights / "whisper_tiny_en_encoder")

    def score(self, raw: RawClip, clip: Clip, listener: Listener) -> dict[str, tuple[float, int]]:
        """condition -> confidence and offset (frames) of the result against the clean sound."""
        sound = self._folder / "sounds" / f"{clip.name}.wav"
        samples = listener.noisy_samples(clip, LOUDEST)
        if not sound.is_file():
            with atomic_path(sound) as path:
                soundfile.write(path, samples, SAMPLE_RATE)
        given = {SOUND: (), BOTH: listener.noisy(samples, listener.clean(clip).phonemes).phonemes}
        return {name: self._one(raw, clip, sound, str(k), given[name]) for k, name in enumerate(given)}

    def _one(
        self, raw: RawClip, clip: Clip, sound: Path, name: str, phonemes: tuple[Phoneme, ...]
    ) -> tuple[float, int]:
        video = self._folder / "videos" / f"{clip.name}-{name}.mp4"
        if not video.is_file():
            chosen = self._config.inference
            quality = {key: getattr(chosen, key) for key in ("steps", "guidance", "seed", "crf")}
            options = Options(**quality, fit="cut", rest="cut")
            self._pipeline.run(raw.video, sound, video, options, phonemes=phonemes)
        reading = look(video, self._config)
        heard = self._judge.hear(clip_samples(clip))
        found = self._judge.compare(self._judge.see(reading), heard, reading.first)
        return found.confidence, found.offset


def measure_results(
    config: Config, clips: Sequence[Clip], listener: Listener, faces: Path, count: int, folder: Path
) -> dict[str, dict]:
    """condition -> mean confidence, results within one frame, number of videos, and all scores by clip."""
    raw = {clip.video.stem: clip for clip in find_clips(faces)}
    chosen = [clip for clip in in_turn(clips) if clip.name in raw and clip.frames >= MIN_FRAMES][:count]
    results, scores = Results(config, folder), defaultdict(dict)
    for clip in tqdm(chosen, unit="clip"):
        try:
            for condition, score in results.score(raw[clip.name], clip, listener).items():
                scores[condition][clip.name] = score
        except InputError as error:
            tqdm.write(f"left out: {error}")
    return {
        condition: {
            "confidence": float(np.mean([confidence for confidence, _ in found.values()])),
            "in_step": sum(abs(offset) <= 1 for _, offset in found.values()),
            "videos": len(found),
            "clips": found,
        }
        for condition, found in scores.items()
    }


def in_turn(clips: Sequence[Clip]) -> list[Clip]:
    """The first clip of each person, then the second of each, and so on."""
    seen: Counter[str] = Counter()
    ranked = []
    for clip in clips:
        ranked.append((seen[clip.person], clip))
        seen[clip.person] += 1
    return [clip for _, clip in sorted(ranked, key=lambda pair: (pair[0], pair[1].name))]


def shapes_table(shapes: dict[str, dict[str, dict]]) -> str:
    """The first table for people."""
    lines = ["| Sound | Given | Opening, correlation ↑ (median person) | Gate: weight of the sound |", _RULE]
    for sound, by in shapes.items():
        for condition, row in by.items():
            lines.append(f"| {sound} | {condition} | {row['opening']:.3f} ({row['median']:.3f}) | {row['gate']:.2f} |")
    return "\n".join(lines)


def results_table(results: dict[str, dict]) -> str:
    """The second table."""
    lines = [f"| Results, {LOUDEST} at 0 dB | Given | LSE-C ↑ | within ±1 frame ↑ |", _RULE]
    for condition, row in results.items():
        lines.append(f"| {row['videos']} clips | {condition} | {row['confidence']:.3f} | {row['in_step']} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processed", type=Path, required=True, metavar="DIR", help="a processed split")
    parser.add_argument("--clips", type=int, metavar="N", help="only so many, in turn over the people; 0: no shapes")
    parser.add_argument("--faces", type=Path, metavar="DIR", help="the same clips' videos; leave out to make none")
    parser.add_argument("--videos", type=int, default=60, metavar="N", help="clips that are made (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("outputs/fusion"), help="sounds, videos (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all numbers")
    parser.add_argument("--config", type=Path, default=Path("model_config.yaml"), help="settings (%(default)s)")
    args = parser.parse_args(arguments)
    try:
        config = load_config(args.config)
        clips = load_clips(args.processed.parent, args.processed.name, config.data.window, config.data.fps)
        listener = Listener(config, clips)
        shapes, results = {}, {}
        if args.clips != 0:
            shapes = measure_shapes(config, in_turn(clips)[: args.clips], listener)
            print(shapes_table(shapes), flush=True)
        if args.faces:
            results = measure_results(config, clips, listener, args.faces, args.videos, args.output)
            print(results_table(results))
        if args.json:
            with atomic_path(args.json) as path:
                path.write_text(json.dumps({"shapes": shapes, "results": results}, indent=1), encoding="utf-8")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
