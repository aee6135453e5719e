"""How a person's lips follow the sound: the last layer between speech and mouth shape is solved anew, in closed form.

How wide the mouth opens, which lip moves and how early differs from person to person. Ridge regression of what the mesh
shows minus what the model expects, from the activations before the last layer, is added to that layer's weights.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from engines.base import Change
from engines.lite.model import LipSyncModel
from engines.lite.parts import Heard, true_shapes
from faces.alignment import LIPS_INNER, LIPS_OUTER
from faces.mouth_shape import MouthShape, mouth_opening

_FOLDS = 4
_LIPS = slice(0, len(LIPS_OUTER) + len(LIPS_INNER))  # they come first among the points of a mouth shape
_SMALLEST_GAIN = 1e-3


def fit_speech(model: LipSyncModel, heard: Heard, ridge: float) -> tuple[LipSyncModel, Change]:
    """Fit the last layer to a person.

    Args:
        model: stays as it is.
        heard: the person with the own sound.
        ridge: see `ridge_layer`.

    Returns:
        An adapted copy, or `model` itself where that is better; the mean error of the lip points on frames left out,
        px of the mouth window.
    """
    neutral, _, true = true_shapes(heard, model.mouth_shape)
    times, resting = heard.times(), float(mouth_opening(neutral.mouth[None])[0])
    hidden = hidden_reader(model).predict_shape(heard.speech, times, resting)
    missing = (true - model.predict_shape(heard.speech, times, resting)).astype(np.float64)
    before, after = try_layer(hidden, missing, model.mouth_shape, ridge)
    if after >= before:
        return model, Change(before, after, kept=False)
    return with_shape_layer(model, *ridge_layer(hidden, missing, ridge)), Change(before, after, kept=True)


def try_layer(hidden: np.ndarray, missing: np.ndarray, shape: MouthShape, ridge: float) -> tuple[float, float]:
    """Mean error of the lips, px, without and with a new layer; each quarter is predicted from the other three."""
    left = np.empty_like(missing)
    for fold in np.array_split(np.arange(len(missing)), _FOLDS):
        others = np.setdiff1d(np.arange(len(missing)), fold)
        weight, bias = ridge_layer(hidden[others], missing[others], ridge)
        left[fold] = missing[fold] - (hidden[fold] @ weight + bias)
    return _lips_px(missing, shape), _lips_px(left, shape)


def _lips_px(error: np.ndarray, shape: MouthShape) -> float:
    """Mean distance of the lip points, window px, of errors (N, K) of the coefficients; constants do not count."""
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
    mean, spread = hidden.mean(0, dtype=np.float64), hidden.std(0, dtype=np.float64)
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
