"""Random changes of training samples that keep what they teach."""

from __future__ import annotations

import cv2
import numpy as np

# A grey value from RGB, the weights of ITU-R BT.601.
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# Drawing fresh normal numbers would cost more than training on them: take random pieces of these.
NOISE = np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32)


def colour_jitter(images: np.ndarray, random: np.random.Generator, strength: float) -> np.ndarray:
    """Change brightness, contrast, saturation and white balance, the same for all frames given.

    Args:
        images: uint8 RGB (..., H, W, 3).
        random: source of randomness.
        strength: largest relative change, 0 to 1.

    Returns:
        uint8 RGB of the same shape.
    """
    if strength == 0:
        return images
    contrast, saturation = 1 + random.uniform(-strength, strength, 2)
    brightness = 255 * random.uniform(-strength, strength)
    gains = 1 + random.uniform(-strength, strength, 3) / 3
    mixing = contrast * (saturation * np.eye(3) + (1 - saturation) * GREY)
    offset = np.full(3, 127.5 * (1 - contrast) + brightness)
    matrix = gains[:, None] * np.column_stack([mixing, offset])
    return cv2.transform(images.reshape(-1, *images.shape[-2:]), matrix).reshape(images.shape)


def random_crop(image: np.ndarray, random: np.random.Generator, side: int) -> tuple[np.ndarray, int, int]:
    """A square crop of (H, W, 3) at a random place, as (crop, left, top)."""
    height, width = image.shape[:2]
    top = int(random.integers(height - side + 1))
    left = int(random.integers(width - side + 1))
    return image[top : top + side, left : left + side], left, top


def warp_frames(frames: np.ndarray, random: np.random.Generator, side: int, strength: float) -> np.ndarray:
    """Scale grey frames to `side`, all with the same random shift, zoom, turn and mirroring.

    Args:
        frames: uint8 (H, W, F), the frames as channels.
        random: source of randomness.
        side: side of the result, px.
        strength: largest shift, as a fraction of the side; zoom likewise; the turn up to that many radians.

    Returns:
        uint8 (side, side, F).
    """
    height, width = frames.shape[:2]
    zoom = side / width * (1 + random.uniform(-strength, strength))
    turn = random.uniform(-strength, strength)
    cosine, sine = zoom * np.cos(turn), zoom * np.sin(turn)
    matrix = np.array([[cosine, -sine, 0], [sine, cosine, 0]])
    if random.random() < 0.5:
        matrix[:, 0] *= -1
    centre = side / 2 + side * random.uniform(-strength, strength, 2)
    matrix[:, 2] = centre - matrix[:, :2] @ (width / 2, height / 2)
    frames = np.ascontiguousarray(frames)
    return cv2.warpAffine(frames, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def brightness_jitter(frames: np.ndarray, random: np.random.Generator, strength: float) -> np.ndarray:
    """Change contrast and gamma of grey uint8 frames (H, W, F), the same for all; brightness follows."""
    levels = np.linspace(0, 1, 256) ** np.exp(random.uniform(-strength, strength) * 2)
    levels = 0.5 + (levels - 0.5) * (1 + random.uniform(-strength, strength))
    return cv2.LUT(frames, np.clip(levels * 255, 0, 255).astype(np.uint8))


def standardise(frames: np.ndarray, mean: float, spread: float) -> np.ndarray:
    """Map grey uint8 frames to a mean and a standard deviation (of all frames together), still uint8."""
    sample = frames[::4, ::4]
    levels = (np.arange(256) - sample.mean()) * (spread / (sample.std() + 0.1)) + mean
    return cv2.LUT(frames, np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def disturb_features(
    features: np.ndarray, random: np.random.Generator, noise: float, drop: float, mask_chance: float
) -> np.ndarray:
    """Make features of sound less reliable, in place of the noise and rooms that the data lacks.

    Args:
        features: float32 (T, ..., C).
        random: source of randomness.
        noise: standard deviation of added noise, in standard deviations of the features.
        drop: fraction of channels (the same at all times) set to their mean.
        mask_chance: chance that a stretch of up to a quarter of the time is set to the mean.
    """
    mean, spread = features.mean(axis=0, keepdims=True), features[..., ::8].std()
    first = random.integers(len(NOISE) - features.size)
    changed = features + noise * spread * NOISE[first : first + features.size].reshape(features.shape)
    lost = random.random(features.shape[-1]) < drop
    changed[..., lost] = mean[..., lost]
    if random.random() < mask_chance:
        length = int(random.integers(1, max(2, len(features) // 4)))
        start = int(random.integers(len(features) - length + 1))
        changed[start : start + length] = mean[0]
    return changed
