"""Published weights: layouts that are taken, files that are refused with one sentence, and nothing of them run."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from engines.hearing import load_whisper, make_whisper
from engines.public import let_compile
from engines.published import fill, read_tensors
from engines.vae import decode, encode, load_vae, make_vae
from tests.published import Golden, by_rule, distance, key_list, needs_published, needs_time, rule_state
from utils.helpers import InputError

TINY_VAE = (32, 32, 64, 64)


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def save(path: Path, state: dict[str, torch.Tensor], layout: str) -> Path:
    """Write a state as one of the layouts in which weights are published."""
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    if layout == "safetensors":
        save_file(state, path.with_suffix(".safetensors"))
        return path.with_suffix(".safetensors")
    content = {
        "bare": state,
        "wrapped": {"state_dict": state, "global_step": 7},
        "whisper": {"dims": {"n_mels": 80}, "model_state_dict": state},
        "old": {"state_dict": prefixed, "optimizer": {"state": {0: torch.zeros(9)}}, "global_epoch": 3},
    }[layout]
    torch.save(content, path, _use_new_zipfile_serialization=layout != "old")
    return path


@pytest.mark.parametrize("layout", ["safetensors", "bare", "wrapped", "whisper", "old"])
def test_layouts(layout: str, tmp_path: Path) -> None:
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in small().state_dict().items()
    }
    network = fill(small, read_tensors(save(tmp_path / "net.pth", state, layout)), tmp_path)
    assert not network.training
    for name, tensor in network.state_dict().items():
        assert tensor.dtype in (torch.float32, torch.int64)
        assert torch.equal(tensor, state[name].to(tensor.dtype))


class RunsCode:
    """A pickle that would make a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple:
        return Path.touch, (self.made,)


def hostile(fault: str, folder: Path) -> Path:
    path, good = folder / "weights.pth", small().state_dict()
    torch.save(good, path)
    if fault == "code":
        torch.save({"state_dict": good, "more": RunsCode(folder / "ran")}, path)
    elif fault == "plain pickle of code":
        path.write_bytes(pickle.dumps(RunsCode(folder / "ran")))
    elif fault == "truncated":
        path.write_bytes(path.read_bytes()[:-400])
    elif fault == "truncated, old":
        torch.save(good, path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes()[:-20])
    elif fault == "truncated safetensors":
        path = save(path, good, "safetensors")
        path.write_bytes(path.read_bytes()[:-20])
    elif fault == "claims 50 GB":
        path = folder / "weights.safetensors"
        header = b'{"0.weight":{"dtype":"F32","shape":[12500000000],"data_offsets":[0,50000000000]}}'
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    elif fault == "claims 50 GB, old":
        torch.save(good, path, _use_new_zipfile_serialization=False)
        content = path.read_bytes()
        size = pickle.dumps(6, 2)[2:-1]  # elements of the first weight
        assert size in content
        path.write_bytes(content.replace(size, pickle.dumps(12_500_000_000, 2)[2:-1]))
    elif fault == "unpacks to 5 GB":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open("archive/data/0", "w", force_zip64=True) as entry:
                for _ in range(64):
                    entry.write(bytes(2**20))
    elif fault == "text":
        path.write_text("not weights")
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "one tensor":
        torch.save(torch.zeros(3), path)
    elif fault == "other things":
        torch.save({"a": 1, "b": "two"}, path)
    elif fault == "folder":
        path.unlink()
        path.mkdir()
    return path


@pytest.mark.parametrize(
    "fault",
    ["code", "plain pickle of code", "truncated", "truncated, old", "truncated safetensors", "claims 50 GB",
     "claims 50 GB, old", "unpacks to 5 GB", "text", "empty", "one tensor", "other things", "folder", "missing"],
)  # fmt: skip
def test_hostile_files(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "missing.pth" if fault == "missing" else hostile(fault, tmp_path)
    with pytest.raises(InputError) as refused:
        read_tensors(path)
    sentence = str(refused.value)
    assert str(path) in sentence and "\n" not in sentence and sentence.endswith(".")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("0.bias"), "does not hold 0.bias"),
        (lambda s: s.update(more=torch.zeros(2)), "does not know: more"),
        (lambda s: s.update({"0.weight": torch.zeros(5, 2)}), r"0\.weight \[5, 2\] instead of \[3, 2\]"),
        (lambda s: [s.update({f"x{i}": torch.zeros(1)}) for i in range(5)], "x0, x1, x2 and 2 more"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, said: str, tmp_path: Path) -> None:  # noqa: ANN001
    state = small().state_dict()
    change(state)
    with pytest.raises(InputError, match=said):
        fill(small, state, tmp_path / "weights.pth")


@torch.inference_mode()
def test_compiled_networks_draw_the_same() -> None:
    """PyTorch's compiler takes them in whole (here without a backend that needs a C++ compiler or a GPU)."""
    from torch._dynamo.utils import counters

    vae, latents = make_vae((32,)).eval(), torch.ones(1, 4, 8, 8)
    plain, names = vae.decode(latents).sample, list(vae.state_dict())
    counters.clear()
    assert torch.equal(let_compile(vae, "eager").decode(latents).sample, plain)
    assert counters["frames"]["ok"] >= 1 and not counters["graph_break"] and list(vae.state_dict()) == names


@needs_published
@torch.inference_mode()
def test_vae(tmp_path: Path) -> None:
    """Through the file in its old names; both directions."""
    golden, old = Golden("sd_vae_tiny"), key_list("sd_vae_ft_mse")["old_names"]
    theirs = {new: name for name, new in old.items()}
    state = rule_state(make_vae(TINY_VAE))
    vae = load_vae(save(tmp_path / "vae", {theirs.get(name, name): t for name, t in state.items()}, "safetensors"))
    found = encode(vae, golden.tensor("input"), lambda shape: golden.tensor("noise"))
    assert distance(found, golden["sample"] * np.float32(0.18215)) < 5e-5
    assert distance(decode(vae, golden.tensor("latent_in") * 0.18215), golden["decoded"]) < 5e-5


@needs_published
def test_vae_has_the_published_tensors() -> None:
    with torch.device("meta"):
        state = make_vae().state_dict()
    listed = key_list("sd_vae_ft_mse")["tensors"]
    assert {name: list(tensor.shape) for name, tensor in state.items()} == {n: s for n, (s, _) in listed.items()}


@needs_time
@needs_published
@torch.inference_mode()
def test_full_vae() -> None:
    golden, vae = Golden("sd_vae_full"), by_rule(make_vae())
    found = encode(vae, golden.tensor("input"), lambda shape: golden.tensor("noise"))
    assert distance(found, golden["sample"] * np.float32(0.18215)) < 5e-5
    assert distance(decode(vae, golden.tensor("latent_in") * 0.18215), golden["decoded"]) < 5e-5


@needs_published
@pytest.mark.parametrize("layout", ["openai", "transformers", "prefixed"])
def test_whisper_files(layout: str, tmp_path: Path) -> None:
    """Both layouts give the same encoder; the decoder beside it does not matter, a missing tensor does."""
    network = make_whisper()
    state = {f"encoder.{name}": tensor for name, tensor in network.state_dict().items()}
    if layout == "openai":
        names = key_list("whisper_tiny_transformers")["openai_names"]
        state = {names[name]: tensor for name, tensor in state.items()}
    elif layout == "prefixed":
        state = {f"model.{name}": tensor for name, tensor in state.items()}
    beside = {"model.decoder.x" if layout == "prefixed" else "decoder.x": torch.zeros(2)}
    kind = "whisper" if layout == "openai" else "safetensors"
    loaded = load_whisper(save(tmp_path / "tiny.pt", state | beside, kind)).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in network.state_dict().items())
    del state[next(name for name in state if name.endswith("conv1.bias"))]
    with pytest.raises(InputError, match="does not hold conv1.bias"):
        load_whisper(save(tmp_path / "less.pt", state | beside, kind))
