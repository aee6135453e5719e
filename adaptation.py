"""Adaptation: before generating, a copy of the networks learns from the input video with its own sound.

How a person's lips follow the sound differs from person to person: how wide they open, which lip moves, how early. The
last layer that turns speech into a mouth shape is solved anew for the person, in closed form: ridge regression of what
the mesh shows minus what the model expects, from the activations before that layer. What does not come out better on
frames that it has not learnt from is not used.

It needs a video whose sound belongs to its picture. The sync network `syncnet_judge` decides that first; where it does
not fit, nothing is learnt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from faces.alignment import LIPS_INNER, LIPS_OUTER
from faces.footage import FPS, Footage
from faces.mouth_shape import MouthShape, Neutral, mouth_opening
from latent_diffusion import LipSyncModel
from models.speech_track import SpeechTrack
from models.syncnet import WINDOW, SyncNetV2, SyncResult
from utils.config import AdaptationConfig

SAMPLE_RATE = 16000
MAX_SHIFT = 10  # frames either way among which the offset of the sound is searched
MARGIN = 25  # frames of sound before and after a stretch: the reach of the speech encoder and of the search
_FOLDS = 4
_LIPS = slice(0, len(LIPS_OUTER) + len(LIPS_INNER))  # they come first among the points of a mouth shape
_SMALLEST_GAIN = 1e-3


@dataclass(frozen=True)
class Change:
    """A measure on frames that were not learnt from, before and after learning."""

    before: float
    after: float


@dataclass(frozen=True)
class AdaptationReport:
    """What adapting to the person did.

    Attributes:
        seconds: how long it took.
        footage_s: seconds of the person that were looked at.
        skipped: why nothing was changed, without "adaptation skipped"; None when something was.
        sync: how well the video's own sound fits its picture; None where that was not measured.
        lips_px: mean error of the predicted lip points, px of the mouth window (72 px are between the eyes).
    """

    seconds: float = 0.0
    footage_s: float = 0.0
    skipped: str | None = None
    sync: SyncResult | None = None
    lips_px: Change | None = None

    def sentence(self) -> str:
        """What was done, for a person."""
        if self.skipped is not None:
            return f"Adaptation skipped: {self.skipped}."
        before, after = self.lips_px.before, self.lips_px.after
        return (
            f"Adapted in {self.seconds:.0f} s to {self.footage_s:.0f} s of the person: "
            f"lips off by {before:.2f} px before, {after:.2f} px after (on frames not learnt from)."
        )


class Skipped(Exception):
    """There is a reason not to adapt; the message is the end of a sentence."""


@dataclass(frozen=True)
class Budget:
    """How long adaptation may go on.

    Attributes:
        end: value of `time.monotonic` at which to stop.
        tick: called often; raises to stop the whole job.
    """

    end: float
    tick: Callable[[], None] = lambda: None

    def is_over(self) -> bool:
        """Whether the time is over; also the moment at which a wish to stop is obeyed."""
        self.tick()
        return time.monotonic() >= self.end


@dataclass(frozen=True)
class _Heard:
    """Footage with its own sound.

    Attributes:
        footage: stretches of the person.
        speech: the sound of all of them in a row, each with a margin.
        starts: of each stretch, its first frame's number in that sound (25 a second).
    """

    footage: Sequence[Footage]
    speech: SpeechTrack
    starts: list[int]

    def times(self, offset: int) -> np.ndarray:
        """Seconds in the sound (N,) of all frames, the picture moved against the sound by `offset` frames."""
        numbers = [start + np.arange(len(f)) for start, f in zip(self.starts, self.footage, strict=True)]
        return (np.concatenate(numbers) + offset) / FPS


def adapt(
    model: LipSyncModel,
    footage: Sequence[Footage],
    samples: np.ndarray,
    judge: SyncNetV2 | None,
    settings: AdaptationConfig,
    budget: Budget,
) -> tuple[LipSyncModel, AdaptationReport]:
    """Fit a copy of the model to the person in a video.

    Args:
        model: stays as it is.
        footage: stretches of the person, at least 16 frames each.
        samples: the video's own sound, mono (N,) at 16 kHz, from the first frame on.
        judge: tells whether sound and picture belong together; None where there are no weights of it.
        settings: see the configuration.
        budget: how long it may take.

    Returns:
        The adapted copy, or `model` itself where adaptation was skipped; and what was done.
    """
    started = time.monotonic()
    seconds = sum(len(f) for f in footage) / FPS
    sync = None
    try:
        heard = _listen(model, footage, samples, settings)
        sync = _measure_sync(heard, judge, settings)
        _check_sync(sync, settings)
        if budget.is_over():
            raise Skipped("the time given was over before anything could be learnt; give more")
        adapted, lips = _fit_speech(model, heard, sync.offset, settings)
    except Skipped as reason:
        return model, AdaptationReport(time.monotonic() - started, seconds, str(reason), sync)
    return adapted, AdaptationReport(time.monotonic() - started, seconds, None, sync, lips)


def _listen(model: LipSyncModel, footage: Sequence[Footage], samples: np.ndarray, settings: AdaptationConfig) -> _Heard:
    """Hear the sound around each stretch; raises Skipped where there is too little footage."""
    seconds = sum(len(f) for f in footage) / FPS
    if seconds < settings.min_footage_s:
        raise Skipped(
            f"only {seconds:.1f} s of a usable face could be looked at, {settings.min_footage_s:g} s are needed"
        )
    hop = SAMPLE_RATE // FPS
    pieces, starts, length = [], [], 0
    for stretch in footage:
        first = max(0, stretch.first - MARGIN)
        stop = stretch.first + len(stretch) + MARGIN
        piece = samples[first * hop : stop * hop]
        pieces.append(np.pad(piece, (0, (stop - first) * hop - len(piece))))
        starts.append(length + stretch.first - first)
        length += stop - first
    return _Heard(footage, model.hear(np.concatenate(pieces)), starts)


def _measure_sync(heard: _Heard, judge: SyncNetV2 | None, settings: AdaptationConfig) -> SyncResult:
    if judge is None:
        raise Skipped("there are no weights of the network that checks whether sound and picture belong together")
    return own_sync(heard.footage, heard.starts, heard.speech, judge, settings.sync_windows)


def _check_sync(sync: SyncResult, settings: AdaptationConfig) -> None:
    """Raise Skipped where sound and picture do not belong together."""
    if sync.confidence < settings.min_sync_confidence or abs(sync.offset) > settings.max_sync_offset:
        raise Skipped(
            "the sound of the video does not fit its picture "
            f"(confidence {sync.confidence:.2f}, offset {sync.offset:+d} frames)"
        )


@torch.inference_mode()
def own_sync(
    footage: Sequence[Footage], starts: Sequence[int], speech: SpeechTrack, judge: SyncNetV2, count: int
) -> SyncResult:
    """Offset search (see `models.syncnet.offset_search`) over windows spread over all stretches.

    Args:
        footage: stretches of at least 16 frames.
        starts: the first frame of each in `speech`, 25 a second.
        speech: the sound.
        judge: the network.
        count: windows that are looked at, at most.
    """
    places = [(k, i) for k, f in enumerate(footage) for i in range(len(f) - WINDOW + 1)]
    chosen = [places[i] for i in np.unique(np.linspace(0, len(places) - 1, count).round().astype(int))]
    device = next(judge.parameters()).device
    visual = torch.cat([judge.visual(_window(footage[k], i).to(device)) for k, i in chosen])
    audio = judge.embed_audio(torch.from_numpy(np.asarray(speech.features, np.float32)).to(device))
    frames = torch.tensor([starts[k] + i for k, i in chosen], device=device)
    distance = torch.cdist(visual, audio)
    means = {}
    for shift in range(-MAX_SHIFT, MAX_SHIFT + 1):
        inside = (frames + shift >= 0) & (frames + shift < len(audio))
        if inside.any():
            means[shift] = distance[inside.nonzero()[:, 0], (frames + shift)[inside]].mean().item()
    best = min(means, key=means.__getitem__)
    return SyncResult(best, float(np.median(list(means.values()))) - means[best], means[best])


def _window(footage: Footage, first: int) -> torch.Tensor:
    images = torch.from_numpy(footage.windows[first : first + WINDOW]).permute(0, 3, 1, 2)
    return images[None].float() / 127.5 - 1


def _fit_speech(
    model: LipSyncModel, heard: _Heard, offset: int, settings: AdaptationConfig
) -> tuple[LipSyncModel, Change]:
    """The model with a new last layer between speech and mouth shape, and the lips' error on frames left out."""
    points = np.concatenate([f.points for f in heard.footage])
    shape = model.mouth_shape
    neutral = shape.neutral(points)
    true = shape.encode(points, shape.base(neutral, points))
    times, resting = heard.times(offset), _resting(neutral)
    expected = model.predict_shape(heard.speech, times, resting)
    hidden = hidden_reader(model).predict_shape(heard.speech, times, resting)
    missing = (true - expected).astype(np.float64)
    change = _tried(hidden, missing, shape, settings.ridge)
    if change.after >= change.before:
        raise Skipped(
            f"learning from the video did not help (lips off by {change.before:.2f} px, then {change.after:.2f} px)"
        )
    return with_shape_layer(model, *ridge_layer(hidden, missing, settings.ridge)), change


def _resting(neutral: Neutral) -> float:
    return float(mouth_opening(neutral.mouth[None])[0])


def _tried(hidden: np.ndarray, missing: np.ndarray, shape: MouthShape, ridge: float) -> Change:
    """Mean error of the lips, each quarter of the footage predicted from the other three; constants do not count."""
    left = np.empty_like(missing)
    for fold in np.array_split(np.arange(len(missing)), _FOLDS):
        others = np.setdiff1d(np.arange(len(missing)), fold)
        weight, bias = ridge_layer(hidden[others], missing[others], ridge)
        left[fold] = missing[fold] - (hidden[fold] @ weight + bias)
    return Change(_lips_px(missing, shape), _lips_px(left, shape))


def _lips_px(error: np.ndarray, shape: MouthShape) -> float:
    """Mean distance of the lip points, window px, of errors (N, K) of the coefficients."""
    moved = ((error - error.mean(0)) @ shape.components).reshape(len(error), -1, 2)
    return float(np.linalg.norm(moved[:, _LIPS], axis=-1).mean())


def ridge_layer(hidden: np.ndarray, missing: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression that leaves the mean alone: rest and habits of expression belong to the take, not to speech.

    Args:
        hidden: activations (N, D).
        missing: what shall be added to the prediction (N, K).
        ridge: pull towards no change, in frames: so many frames of standardised activations weigh as much.

    Returns:
        Weight (D, K) and bias (K,) such that `hidden @ weight + bias` has mean zero over the N frames.
    """
    mean = hidden.mean(0, dtype=np.float64)
    spread = hidden.std(0, dtype=np.float64)
    spread = spread + 1e-3 * max(float(hidden.std()), 1e-6)
    z = (hidden - mean) / spread
    gram = z.T @ z + ridge * np.eye(z.shape[1])
    weight = np.linalg.solve(gram, z.T @ (missing - missing.mean(0))) / spread[:, None]
    return weight, -mean @ weight


def hidden_reader(model: LipSyncModel) -> LipSyncModel:
    """A copy whose `predict_shape` returns the activations before the last layer instead of the mouth shape."""
    reader = model.copy()
    reader.speech_model.temporal.shape_head[-1] = nn.Identity()
    reader.speech_model.shape_gain = torch.ones(1, device=model.device)
    return reader


def with_shape_layer(model: LipSyncModel, weight: np.ndarray, bias: np.ndarray) -> LipSyncModel:
    """A copy whose predicted mouth shape is larger by `hidden @ weight + bias`; (D, K) and (K,)."""
    adapted = model.copy()
    speech = adapted.speech_model
    layer: nn.Linear = speech.temporal.shape_head[-1]
    gain = speech.shape_gain.clamp_min(_SMALLEST_GAIN)
    with torch.no_grad():
        layer.weight += torch.from_numpy(weight.T).to(layer.weight) / gain[:, None]
        layer.bias += torch.from_numpy(bias).to(layer.bias) / gain
    return adapted
