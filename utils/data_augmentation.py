"""Random changes of training samples that keep what they teach."""

from __future__ import annotations

import numpy as np

# A grey value from RGB, the weights of ITU-R BT.601.
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


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
    pixels = images.astype(np.float32)
    contrast, saturation = 1 + random.uniform(-strength, strength, 2)
    brightness = 255 * random.uniform(-strength, strength)
    gains = 1 + random.uniform(-strength, strength, 3) / 3
    grey = pixels @ GREY
    pixels = grey[..., None] + (pixels - grey[..., None]) * saturation
    pixels = (pixels - 127.5) * contrast + 127.5 + brightness
    return np.clip(np.rint(pixels * gains), 0, 255).astype(np.uint8)


def random_crop(image: np.ndarray, random: np.random.Generator, side: int) -> tuple[np.ndarray, int, int]:
    """A square crop of (H, W, 3) at a random place, as (crop, left, top)."""
    height, width = image.shape[:2]
    top = int(random.integers(height - side + 1))
    left = int(random.integers(width - side + 1))
    return image[top : top + side, left : left + side], left, top
