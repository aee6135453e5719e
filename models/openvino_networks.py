"""The networks that draw pictures, run by OpenVINO on a CPU: the autoencoder in 8-bit integers, the U-Net in bfloat16.

What is run is made from the PyTorch weights as they were loaded, and kept in the user's cache folder under a name that
depends on the weights, so that only the first run on a machine pays for it.

The autoencoder's convolutions compute in integers: weights with one scale per output channel, inputs with one range per
convolution. The ranges are those of pictures of coloured 1/f noise, whose spectrum and contrast are those of
photographs; a little beyond them is kept free.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import openvino
import torch
from openvino import opset13 as ops
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import nn

from models.autoencoder import MouthAutoencoder
from models.precision import fast_dtype
from utils.network_cache import cache_file, compiled_network

FRAMES_AT_ONCE = 4  # frames that the autoencoder takes in one call
_PICTURE = 96  # px of the side of what the generator draws
_NOISE_PICTURES = 8
_HEADROOM = 1.3  # how far beyond the measured range a value may lie before it is cut off
_VERSION = 2  # of this file's way to make networks; part of the names in the cache


class OpenVinoNetworks:
    """See `models.networks.Networks`. Loading goes on in the background; the first call of each network waits for it.

    Args:
        autoencoder: float32, on the CPU; it must not change afterwards.
        unet: the same of the generator.
        unet_inputs: channels of its input, tokens of a frame, width of a token.
        window: frames that the U-Net takes at once; shorter windows are filled up.
        threads: CPU threads of one network.
        keep: store what was made in the cache.
    """

    def __init__(
        self,
        autoencoder: MouthAutoencoder,
        unet: nn.Module,
        unet_inputs: tuple[int, int, int],
        window: int,
        threads: int = 1,
        keep: bool = True,
    ):
        self.window = window
        channels, tokens, width = unet_inputs
        latents = autoencoder.config.latent_channels
        side = _PICTURE // 8
        picture = (FRAMES_AT_ONCE, 3, _PICTURE, _PICTURE)
        shapes = [(1, channels, window, side, side), (1,), (window, tokens, width)]
        makers = {
            "encode": (autoencoder, lambda: _coder(autoencoder.encode, autoencoder, _noise_pictures()), [picture]),
            "decode": (
                autoencoder,
                lambda: _coder(autoencoder.decode, autoencoder, _noise_latents(autoencoder)),
                [(FRAMES_AT_ONCE, latents, side, side)],
            ),
            "unet": (unet, lambda: _converted(_First(unet), [torch.zeros(shape) for shape in shapes]), shapes),
        }
        # One after another: tracing is not made for threads, and two cores are soon busy.
        loader = ThreadPoolExecutor(1, thread_name_prefix="load-networks")
        self._networks = {
            name: loader.submit(_network, name, module, make, inputs, threads, keep)
            for name, (module, make, inputs) in makers.items()
        }
        loader.shutdown(wait=False)

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return self._in_parts("encode", pictures)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self._in_parts("decode", latents)

    def difference(self, stacked: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        frames = stacked.shape[2]
        missing = self.window - frames
        if missing < 0 or len(stacked) != 1:
            raise ValueError(f"{len(stacked)} windows of {frames} frames, but the U-Net takes one of {self.window}.")
        if missing:
            stacked = torch.cat([stacked, stacked[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2)
            tokens = torch.cat([tokens, tokens[-1:].expand(missing, -1, -1)])
        return self._networks["unet"].result()(stacked, timestep, tokens)[:, :, :frames]

    def _in_parts(self, name: str, images: torch.Tensor) -> torch.Tensor:
        network, results = self._networks[name].result(), []
        for part in images.split(FRAMES_AT_ONCE):
            missing = FRAMES_AT_ONCE - len(part)
            filled = torch.cat([part, part[-1:].expand(missing, -1, -1, -1)]) if missing else part
            results.append(network(filled)[: len(part)])
        return torch.cat(results)


class _Network:
    """One compiled network, callable from any thread."""

    def __init__(self, compiled: openvino.CompiledModel):
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        values = [np.ascontiguousarray(value.detach().float().numpy()) for value in inputs]
        with self._lock:
            self._request.infer(values, share_inputs=True)
            return torch.from_numpy(self._request.get_output_tensor(0).data.copy())


class _First(nn.Module):
    """A U-Net that returns a tensor instead of a table."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, stacked: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return self.unet(stacked, timestep, tokens, return_dict=False)[0]


class _Method(nn.Module):
    """One method of a module as a module."""

    def __init__(self, method: Callable[[torch.Tensor], torch.Tensor], owner: nn.Module):
        super().__init__()
        self.owner = owner
        self._method = method

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._method(x)


def _network(
    name: str, module: nn.Module, make: Callable[[], openvino.Model], shapes: Sequence[tuple], threads: int, keep: bool
) -> _Network:
    """The compiled network, from the cache where it is there."""
    settings = _settings(threads)

    def fixed() -> openvino.Model:
        model = make()
        for port, shape in zip(model.inputs, shapes, strict=True):
            port.get_tensor().set_names({port.get_any_name() if port.names else f"input{port.index}"})
            port.get_node().set_partial_shape(openvino.PartialShape(list(shape)))
        model.validate_nodes_and_infer_types()
        return model

    file = cache_file("networks", name, _VERSION, list(shapes), settings, contents=_weights(module)) if keep else None
    return _Network(compiled_network(settings, fixed, file))


def _weights(module: nn.Module) -> Iterator[bytes]:
    for key, value in module.state_dict().items():
        yield key.encode() + value.detach().float().contiguous().numpy().tobytes()


def _settings(threads: int) -> dict[str, Any]:
    """Of one network. Unpinned: pinned to the first core, two networks of one thread each would share it."""
    low = fast_dtype("cpu") == torch.bfloat16
    return {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "bf16" if low else "f32",
    }


def _converted(module: nn.Module, inputs: Sequence[torch.Tensor]) -> openvino.Model:
    """The network in OpenVINO's form, for inputs of these shapes."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # sizes are fixed on purpose
        traced = torch.jit.freeze(torch.jit.trace(module.eval(), tuple(inputs), check_trace=False))
    # Not openvino.convert_model: it reports its use to a server, and takes twice as long.
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced, example_input=tuple(inputs))  # the frontend does not keep it alive
    model = frontend.convert(frontend.load(decoder))
    for port, value in zip(model.inputs, inputs, strict=True):
        port.get_node().set_element_type(openvino.Type.f32)
        port.get_node().set_partial_shape(openvino.PartialShape(list(value.shape)))
    model.validate_nodes_and_infer_types()
    return model


def _coder(
    method: Callable[[torch.Tensor], torch.Tensor], owner: nn.Module, examples: torch.Tensor
) -> openvino.Model:
    """One direction of the autoencoder; in integers where the CPU multiplies them fast."""
    model = _converted(_Method(method, owner), [examples[:FRAMES_AT_ONCE]])
    return model if fast_dtype("cpu") == torch.float32 else _in_integers(model, examples)


def _in_integers(model: openvino.Model, examples: torch.Tensor) -> openvino.Model:
    """The model with convolutions in 8 bits, all but the first and the last one: they cost little and show most."""
    chosen = [node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"][1:-1]
    ranges = _ranges(model, [node.input_value(0) for node in chosen], examples)
    for node, (low, high) in zip(chosen, ranges, strict=True):
        limited = ops.fake_quantize(node.input_value(0), low, high, low, high, 256)
        weights = node.input_value(1).get_node().get_data().astype(np.float32)
        largest = np.maximum(np.abs(weights).max(axis=(1, 2, 3), keepdims=True), 1e-8)
        rounded = ops.fake_quantize(ops.constant(weights), -largest, largest, -largest, largest, 255)
        node.input(0).replace_source_output(limited.output(0))
        node.input(1).replace_source_output(rounded.output(0))
    model.validate_nodes_and_infer_types()
    return model


def _ranges(
    model: openvino.Model, outputs: Sequence[openvino.Output], examples: torch.Tensor
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Smallest and largest value at some places within the model, with room to spare."""
    watched = openvino.Model(list(outputs), model.get_parameters(), "watched")
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(watched, "CPU", settings).create_infer_request()
    ranges = np.zeros((len(outputs), 2), np.float32)
    for part in examples.split(FRAMES_AT_ONCE):
        request.infer([part.numpy()])
        for index in range(len(outputs)):
            values = request.get_output_tensor(index).data
            ranges[index] = min(ranges[index, 0], values.min()), max(ranges[index, 1], values.max())
    return [(low * _HEADROOM, high * _HEADROOM) for low, high in ranges]


@cache
def _noise_pictures() -> torch.Tensor:
    """Pictures (N, 3, 96, 96) in [-1, 1] of coloured noise whose spectrum falls like that of photographs."""
    random = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(_PICTURE), np.fft.rfftfreq(_PICTURE), indexing="ij"))
    frequency[0, 0] = 1.0
    white = random.normal(size=(_NOISE_PICTURES, 3, _PICTURE, _PICTURE))
    noise = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(_PICTURE, _PICTURE))
    noise /= noise.std(axis=(1, 2, 3), keepdims=True)
    mixed = 0.3 * noise + 0.7 * noise.mean(axis=1, keepdims=True)  # channels differ less than places
    contrast = random.uniform(0.2, 0.6, (_NOISE_PICTURES, 1, 1, 1))
    brightness = random.uniform(-0.6, 0.6, (_NOISE_PICTURES, 3, 1, 1))
    return torch.from_numpy(np.clip(contrast * mixed + brightness, -1, 1).astype(np.float32))


def _noise_latents(autoencoder: MouthAutoencoder) -> torch.Tensor:
    """Latents (N, 16, 12, 12) of the same pictures."""
    with torch.no_grad():
        return autoencoder.encode(_noise_pictures())
