"""The own sound of a video: heard where there is footage, and checked against the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from faces.footage import FPS, Footage
from latent_diffusion import LipSyncModel
from models.syncnet import WINDOW, SyncNetV2, SyncResult
from pipeline.adaptation.parts import Budget, Heard, Skipped
from utils.config import AdaptationConfig

SAMPLE_RATE = 16000
MAX_SHIFT = 10  # frames either way among which the offset of the sound is searched
MARGIN = 25  # frames of sound before and after a stretch: the reach of the speech encoder and of the search


def listen(model: LipSyncModel, footage: Sequence[Footage], samples: np.ndarray) -> Heard:
    """Hear the sound around each stretch.

    Args:
        model: hears.
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
    return Heard(footage, model.hear(np.concatenate(pieces)), starts)


def check_sync(sync: SyncResult, settings: AdaptationConfig) -> None:
    """Raise Skipped where sound and picture do not belong together."""
    if sync.confidence < settings.min_sync_confidence or abs(sync.offset) > settings.max_sync_offset:
        raise Skipped(
            "the sound of the video does not fit its picture "
            f"(confidence {sync.confidence:.2f}, offset {sync.offset:+d} frames)"
        )


@torch.inference_mode()
def own_sync(heard: Heard, judge: SyncNetV2, count: int, budget: Budget) -> SyncResult:
    """Offset search (see `models.syncnet.offset_search`) over windows spread over all stretches.

    Args:
        heard: stretches of at least 16 frames with their sound.
        judge: the network.
        count: windows that are looked at, at most.
        budget: when to be done.

    Raises:
        Skipped: the time is over before that.
    """
    places = [(k, i) for k, f in enumerate(heard.footage) for i in range(len(f) - WINDOW + 1)]
    chosen = [places[i] for i in np.unique(np.linspace(0, len(places) - 1, count).round().astype(int))]
    device = next(judge.parameters()).device
    embeddings = []
    for k, i in chosen:
        if not budget.left():
            raise Skipped("the time given was over before anything could be learnt")
        embeddings.append(judge.visual(_window(heard.footage[k], i).to(device)))
    visual = torch.cat(embeddings)
    audio = judge.embed_audio(torch.from_numpy(np.asarray(heard.speech.features, np.float32)).to(device))
    frames = torch.tensor([heard.starts[k] + i for k, i in chosen], device=device)
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
