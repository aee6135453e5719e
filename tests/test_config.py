"""The configuration: what is shipped loads, faults are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.config import load_config
from utils.helpers import InputError

SHIPPED = Path(__file__).resolve().parent.parent / "model_config.yaml"


@pytest.mark.parametrize("size", ["debug", "lite", "base"])
def test_every_shipped_size_loads(size: str) -> None:
    config = load_config(SHIPPED, [f"size={size}"])
    assert config.model == getattr(config.models, size)


def test_override_replaces_one_value() -> None:
    before = load_config(SHIPPED)
    after = load_config(SHIPPED, ["training.autoencoder.batch_size=3", "training.autoencoder.max_minutes=1.5"])
    assert (after.training.autoencoder.batch_size, after.training.autoencoder.max_minutes) == (3, 1.5)
    assert after.training.syncnet == before.training.syncnet


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("training.autoencoder.batchsize=3", "training.autoencoder.batchsize"),
        ("data.window=many", "data.window"),
        ("training.syncnet.learning_rate=-1", "training.syncnet.learning_rate"),
        ("models.lite.syncnet.audio_input=video", "models.lite.syncnet.audio_input"),
        ("size=huge", "size"),
        ("nowhere.at_all=1", "nowhere"),
        ("data.window", "data.window"),
        ("data.window=[", "data.window"),
    ],
)
def test_a_wrong_override_is_named(override: str, named: str) -> None:
    with pytest.raises(InputError, match=named.replace(".", r"\.")):
        load_config(SHIPPED, [override])


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    shortened = tmp_path / "config.yaml"
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    shortened.write_text("\n".join(line for line in lines if not line.strip().startswith("cache_gb:")))
    with pytest.raises(InputError, match=r"data\.cache_gb.*missing"):
        load_config(shortened)


@pytest.mark.parametrize("content", [b"size: [", b"- just\n- a list\n", b"\xff\xfe\x00binary"])
def test_a_file_that_is_no_configuration(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"config\.yaml"):
        load_config(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")


def test_every_value_says_what_it_is() -> None:
    """Every line with a value carries a comment: what it is, and its unit."""
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    bare = [line for line in lines if ": " in line and not line.startswith("#") and "#" not in line]
    assert bare == []
