"""What the speech model makes of the part of a sound that can influence given frames."""

from __future__ import annotations

import numpy as np
import torch

from models.movement import heard_tokens
from models.movement_track import Listened
from models.speech_model import SpeechContext, SpeechModel
from models.speech_track import Speech
from models.temporal_encoder import STEP_RATE

_EARLY = 1e-6  # steps; times are not exact to the last digit


def attend(
    model: SpeechModel, speech: Speech, times: np.ndarray, resting: float | None = None, ahead: int | None = None
) -> SpeechContext:
    """Tokens and shape of frames, batch of one.

    Args:
        model: reads the sound.
        speech: the whole sound.
        times: seconds of the frames (F,).
        resting: gap between the lips of the person's resting mouth, window px; None = an average one.
        ahead: steps after the last frame that may be heard; None = what `speech` allows.
    """
    device = model.shape_gain.device
    margin = model.context_steps + model.config.tokens_per_frame
    ahead = speech.ahead if ahead is None else ahead
    ahead = margin if ahead is None else min(margin, ahead)
    last = max(len(speech) - 1, 0)
    first = int(np.clip(np.floor(times.min() * STEP_RATE) - margin, 0, last))
    stop = int(np.clip(np.ceil(times.max() * STEP_RATE - _EARLY) + ahead, first + 1, len(speech)))
    part = speech.part(first, stop)
    features, activity, moved = (
        torch.from_numpy(np.asarray(values, np.float32)[None]).to(device)
        for values in (part.features, part.activity, times - first / STEP_RATE)
    )
    gap = None if resting is None else torch.tensor([resting], device=device)
    phonemes = None
    if part.phonemes is not None and model.config.knows_phonemes:
        phonemes = torch.from_numpy(part.phonemes[None]).to(device)
    return model(features, phonemes, moved, activity=activity, resting=gap)


class SpeechListener:
    """Hears a sound for `models.movement_track.Movement`; see its `Listener`.

    Args:
        model: reads the sound.
        speech: the whole sound.
    """

    def __init__(self, model: SpeechModel, speech: Speech) -> None:
        self._model, self._speech = model, speech
        self.ahead_s = None if speech.ahead is None else speech.ahead / STEP_RATE

    @torch.inference_mode()
    def __call__(self, times: np.ndarray, resting: float, margin_s: float | None) -> Listened:
        ahead = None if margin_s is None else int(margin_s * STEP_RATE)
        heard = attend(self._model, self._speech, times, resting, ahead)
        return Listened(heard_tokens(heard.tokens), heard.shape, heard.activity)
