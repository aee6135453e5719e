"""Whether sound and picture belong together: asked of the video's own sound, before the speaker is chosen and before
anything is learnt from it. No engine is asked: the judge hears by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from engines.base import Budget, Lesson, Skipped
from faces.footage import FPS, Footage
from models.audio_encoder import SpeechEncoder
from models.checkpoint import load_pretrained
from models.syncnet import WINDOW, SyncNetV2, SyncResult
from utils.config import AdaptationConfig

SAMPLE_RATE = 16000
MAX_SHIFT = 10  # frames either way among which the offset of the sound is searched
MARGIN = 25  # frames of sound before and after a stretch: the reach of the speech encoder and of the search


def lesson_of(footage: Sequence[Footage], samples: np.ndarray) -> Lesson:
    """Stretches with the sound around each.

    Args:
        footage: stretches of a person.
        samples: the sound of the video, mono (N,) at 16 kHz, from its first frame on.
    """
    hop = SAMPLE_RATE // FPS
    pieces, starts, length = [], [], 0
    for stretch in footage:
        first = max(0, stretch.first - MARGIN)
        stop = stretch.first + len(stretch) + MARGIN
        piece = samples[first * hop : stop * hop]
        pieces.append(np.pad(piece, (0, (stop - first) * hop - len(piece))))
        starts.append(length + stretch.first - first)
        length += stop - first
    return Lesson(footage, np.concatenate(pieces), starts)


def check_sync(sync: SyncResult, settings: AdaptationConfig) -> None:
    """Raise Skipped where sound and picture do not belong together."""
    if sync.confidence < settings.min_sync_confidence or abs(sync.offset) > settings.max_sync_offset:
        raise Skipped(
            "the sound of the video does not fit its picture "
            f"(confidence {sync.confidence:.2f}, offset {sync.offset:+d} frames)"
        )


class Judge:
    """Compares lips with a sound.

    Args:
        network: the sync network that trained nothing.
        encoder: hears for it.
    """

    def __init__(self, network: SyncNetV2, encoder: SpeechEncoder) -> None:
        self._network, self._encoder = network, encoder

    @classmethod
    def load(cls, weights: Path, size: str, device: torch.device) -> Judge | None:
        """The judge of a folder of weights; None where it has none.

        Raises:
            InputError: the weights do not fit their settings.
        """
        folder = weights / size / "syncnet_judge"
        if not folder.is_dir():
            return None
        encoder = SpeechEncoder.from_pretrained(weights / "whisper_tiny_en_encoder")
        return cls(load_pretrained(SyncNetV2, folder).to(device), encoder.to(device))

    @torch.inference_mode()
    def sync(self, lesson: Lesson, count: int, budget: Budget) -> SyncResult:
        """Offset search (see `models.syncnet.offset_search`) over windows spread over all stretches.

        Args:
            lesson: stretches of at least 16 frames with their sound.
            count: windows that are looked at, at most.
            budget: when to be done.

        Raises:
            Skipped: the time is over before that.
        """
        places = [(k, i) for k, f in enumerate(lesson.footage) for i in range(len(f) - WINDOW + 1)]
        chosen = [places[i] for i in np.unique(np.linspace(0, len(places) - 1, count).round().astype(int))]
        visual = torch.cat([self._seen(lesson.footage[k], i, budget) for k, i in chosen])
        heard = np.asarray(self._encoder.features(lesson.samples), np.float32)
        audio = self._network.embed_audio(torch.from_numpy(heard).to(visual.device))
        return best_shift(visual, audio, [lesson.starts[k] + i for k, i in chosen])

    def _seen(self, footage: Footage, first: int, budget: Budget) -> torch.Tensor:
        """The embedding (1, D) of a window."""
        if not budget.left():
            raise Skipped("the time given was over before anything could be learnt")
        images = torch.from_numpy(footage.windows[first : first + WINDOW]).permute(0, 3, 1, 2)
        device = next(self._network.parameters()).device
        return self._network.visual((images[None].float() / 127.5 - 1).to(device))


def best_shift(visual: torch.Tensor, audio: torch.Tensor, frames: Sequence[int]) -> SyncResult:
    """The shift at which the windows (N, D) that begin at these frames are nearest to the sound (T, D)."""
    begins = torch.tensor(frames, device=visual.device)
    distance = torch.cdist(visual, audio)
    means = {}
    for shift in range(-MAX_SHIFT, MAX_SHIFT + 1):
        inside = (begins + shift >= 0) & (begins + shift < len(audio))
        if inside.any():
            means[shift] = distance[inside.nonzero()[:, 0], (begins + shift)[inside]].mean().item()
    best = min(means, key=means.__getitem__)
    return SyncResult(best, float(np.median(list(means.values()))) - means[best], means[best])
