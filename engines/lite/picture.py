"""How a person's mouth looks: the generator's U-Net goes on training on the person's own windows.

The steps are those of training/generator.py with what use needs: the true mouth shape, inexactly drawn, a draft from
another moment, the noise levels of two-step sampling, and the error of latents and of pixels.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from engines.base import Budget, Change, Skipped, Style
from engines.lite.model import Drafts, LipSyncModel, Seen
from engines.lite.parts import Heard, true_shapes
from faces.bank import Mouth, MouthBank, MouthPicker, lips_of, mouth_of
from faces.mouth_shape import SHAPE_POINTS, mouth_opening
from latent_diffusion import LIPS_PX, Conditions, LatentLipDiffusion
from models.precision import fast_dtype
from utils.config import AdaptationConfig

FRAMES = 16  # in a window that is learnt from
CHECK_FRAMES = 8  # in a window that is left out
DECODED = 4  # frames of a window whose pixels are compared
APART = 10  # frames between a window and what it may not see
LEVELS = (1.0, 0.5)  # noise levels of sampling in two steps; the first is all of the default in use
SHAPE_NOISE = 0.1  # as in training
FACES = 2  # pictures of the person that a window is drawn from
OUTSIDE_WEIGHT = 0.1
WARM_UP = 5
FEWEST_STEPS = 10
LEAST_DETAIL = 0.9  # of the fine detail before; a blurred picture is nearer to the original than a sharp, other one
_SPARE = 1.3  # the check afterwards may take so much longer than the one before


@dataclass(frozen=True)
class _Place:
    """A window: numbers of its frames among all frames of the footage."""

    first: int
    stop: int

    def covers(self, frame: int, margin: int = 0) -> bool:
        return self.first - margin <= frame < self.stop + margin


@dataclass(frozen=True)
class Quality:
    """PSNR in dB, and how much fine detail there is: deviation of the Laplacian, grey levels."""

    psnr: float
    detail: float


class Lessons:
    """Windows of a person to learn from, and a few that are left out.

    Args:
        model: encodes them.
        heard: the person with the own sound.
        left_out: windows that are kept for checking.

    Raises:
        Skipped: there are too few frames.
    """

    def __init__(self, model: LipSyncModel, heard: Heard, left_out: int) -> None:
        self._model, self._heard = model, heard
        self._points, self._pose = heard.points(), heard.pose()
        _, self._base, self._shapes = true_shapes(heard, model.mouth_shape)
        self._times = heard.times()
        self._stretches, at = [], 0
        for stretch in heard.footage:
            self._stretches.append(_Place(at, at + len(stretch)))
            at += len(stretch)
        every = self._windows(CHECK_FRAMES, CHECK_FRAMES)
        self.left_out = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, left_out + 2).astype(int)[1:-1])]
        self._free = [
            place
            for place in self._windows(FRAMES, 1)
            if not any(p.first < place.stop and place.first < p.stop for p in self.left_out)
        ]
        if not self.left_out or not self._free:
            raise Skipped("there are too few frames on end to learn the picture from")

    def _windows(self, length: int, stride: int) -> list[_Place]:
        return [
            _Place(first, first + length)
            for stretch in self._stretches
            for first in range(stretch.first, stretch.stop - length + 1, stride)
        ]

    def picture(self, frame: int) -> np.ndarray:
        """The window of a frame, uint8 (160, 160, 3)."""
        number = next(k for k, stretch in enumerate(self._stretches) if stretch.covers(frame))
        return self._heard.footage[number].windows[frame - self._stretches[number].first]

    def pictures(self, place: _Place) -> np.ndarray:
        """The windows of a place, uint8 (F, 160, 160, 3)."""
        return np.stack([self.picture(frame) for frame in range(place.first, place.stop)])

    def draw(self, random: np.random.Generator) -> tuple[np.ndarray, Drafts, Conditions]:
        """A random window uint8 (F, 160, 160, 3), its drafts, and the conditions to draw it: from other moments."""
        place = self._free[random.integers(len(self._free))]
        count = len(self._points)
        others = [int(f) for f in random.integers(count, size=50) if not place.covers(int(f), APART)]
        shape = self._shapes[place.first : place.stop]
        # As in training: predictions are wrong for a while, not in each frame anew.
        noise = random.standard_normal((1, shape.shape[1])) + 0.5 * random.standard_normal(shape.shape)
        noisy = (shape + SHAPE_NOISE * noise / np.sqrt(1.25)).astype(np.float32)
        points = self._model.mouth_shape.decode(noisy, self._base[place.first : place.stop])
        mouths = self._mouths((others * FACES or [int(random.integers(count))] * FACES)[:FACES])
        drafts = self._drafts(self._model, mouths, points, place)
        faces = self._model.face_tokens(mouths)
        return self.pictures(place), drafts, self._model.conditions(drafts, faces, *self._heard_at(place))

    def _mouths(self, frames: list[int]) -> list[Mouth]:
        points = self._points[frames][:, SHAPE_POINTS]
        pictures = [self.picture(frame) for frame in frames]
        known = (pictures, points, points - self._base[frames], self._shapes[frames], self._pose[frames])
        return [mouth_of(*one) for one in zip(*known, strict=True)]

    def _drafts(self, model: LipSyncModel, mouths: list[Mouth], points: np.ndarray, place: _Place) -> Drafts:
        """Drafts of a place whose lips come from few mouths, so that there is something left to draw."""
        part = slice(place.first, place.stop)
        picks = MouthPicker().pick(MouthBank(tuple(mouths)), lips_of(points - self._base[part]), self._pose[part])
        closed = float(mouth_opening(self._base[part][:1])[0])
        seen = Seen(self.pictures(place), self._points[part][:, SHAPE_POINTS], closed)
        return model.draft(seen, points, picks, np.ones(len(seen), np.float32))

    def _heard_at(self, place: _Place) -> tuple:
        return self._heard.speech, self._times[place.first : place.stop]

    def quality(self, model: LipSyncModel) -> Quality:
        """Of what `model` draws of the windows left out, with their true shapes, where lips are drawn."""
        free = [f for f in range(len(self._points)) if not any(p.covers(f, APART) for p in self.left_out)]
        free = free or list(range(len(self._points)))
        by_opening = np.argsort(mouth_opening(self._points[free][:, SHAPE_POINTS]), kind="stable")
        mouths = self._mouths([free[by_opening[len(free) * part // 4]] for part in (1, 3)])
        values, details = [], []
        for place in self.left_out:
            points = self._points[place.first : place.stop, SHAPE_POINTS]
            drafts = self._drafts(model, mouths, points, place)
            latents = model.draw(drafts, model.face_tokens(mouths), *self._heard_at(place), Style(steps=len(LEVELS)))
            inside = drafts.regions > 0.5
            drawn, real = (
                x[:, LIPS_PX[0], LIPS_PX[1]] for x in (model.render(drafts, latents), self.pictures(place))
            )
            error = (drawn[inside].astype(np.float32) - real[inside]) ** 2
            values.append(10 * np.log10(255**2 / max(float(error.mean()), 1e-3)))
            details += [float(cv2.Laplacian(x, cv2.CV_32F)[m].std()) for x, m in zip(drawn, inside, strict=True)]
        return Quality(float(np.mean(values)), float(np.mean(details)))


def fit_picture(
    model: LipSyncModel, heard: Heard, settings: AdaptationConfig, budget: Budget
) -> tuple[LipSyncModel, Change, int]:
    """Train the U-Net on a person for as long as there is time.

    Args:
        model: stays as it is.
        heard: the person with the own sound.
        settings: learning rate, most steps, windows left out.
        budget: when to be done, the check included.

    Returns:
        An adapted copy, or `model` itself where that is better; PSNR of the mouth on frames left out, dB; steps.

    Raises:
        Skipped: too little time or footage.
    """
    lessons = Lessons(model, heard, settings.windows_left_out)
    started = time.monotonic()
    before = lessons.quality(model)
    reserve = _SPARE * (time.monotonic() - started)
    trainee, steps = _train(model, lessons, settings, budget, reserve)
    if steps < FEWEST_STEPS:
        raise Skipped("there was not enough time to learn the picture")
    adapted = model.copy()
    adapted.generator.load_state_dict(trainee.state_dict())
    after = lessons.quality(adapted)
    kept = after.psnr > before.psnr and after.detail >= LEAST_DETAIL * before.detail
    return (adapted if kept else model), Change(before.psnr, after.psnr, kept), steps


def _train(
    model: LipSyncModel, lessons: Lessons, settings: AdaptationConfig, budget: Budget, reserve: float
) -> tuple[LatentLipDiffusion, int]:
    """A trained float32 copy of the generator, and the number of steps."""
    trainee = copy.deepcopy(model.generator).float()
    parameters = list(trainee.unet.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0)
    random, torch_random = np.random.default_rng(0), torch.Generator().manual_seed(0)
    given = max(budget.left() - reserve, 1e-6)
    for step in range(settings.max_steps):
        left = budget.left() - reserve
        if left <= 0:
            return trainee, step
        progress = max(step / settings.max_steps, 1 - left / given)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (step + 1) / WARM_UP) * (1 - 0.9 * progress)
        optimizer.zero_grad()
        _loss(model, trainee, *lessons.draw(random), LEVELS[step % len(LEVELS)], torch_random).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return trainee, settings.max_steps


def _loss(
    model: LipSyncModel,
    trainee: LatentLipDiffusion,
    window: np.ndarray,
    drafts: Drafts,
    conditions: Conditions,
    level: float,
    random: torch.Generator,
) -> torch.Tensor:
    """Flow-matching error of the latents plus the absolute error of a few decoded frames."""
    clean, device = model.encode(window), model.device
    noise = torch.randn(1, 1, *clean.shape[2:], generator=random).to(device).expand_as(clean)
    inside = torch.from_numpy(drafts.regions)[:, None].to(device)
    region = torch.nn.functional.adaptive_avg_pool2d(inside, clean.shape[-1])[None]
    weights = region + OUTSIDE_WEIGHT * (1 - region)
    dtype = fast_dtype(device)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        levels = torch.full((1,), level, device=device)
        flow, estimate = trainee.loss(clean, conditions, noise, levels, weights / weights.mean())
    chosen = torch.randperm(len(window), generator=random)[:DECODED]
    lips = np.ascontiguousarray(window[chosen.numpy()][:, LIPS_PX[0], LIPS_PX[1]])
    real = torch.from_numpy(lips).permute(0, 3, 1, 2).to(device).float() / 127.5 - 1
    error = (model.decode(estimate[0, chosen]) - real).abs() * inside[chosen]
    return flow + error.mean() / inside[chosen].mean()
