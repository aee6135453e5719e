"""What is known of each built-in engine before anything is loaded: its files, where they are published, its licence.

Sizes and hashes of published files; a file that is not theirs is refused by `--get-engine`, and by the loader where its
tensors do not fit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from utils.helpers import InputError, atomic_path

SHARED = "shared"
"""Folder beside those of the engines, for files that several of them use."""

_ACCEPTED = "accepted_licences.json"


@dataclass(frozen=True)
class Published:
    """Where a file can be had.

    Attributes:
        repo: on the Hugging Face hub.
        path: of the file in it.
        size: bytes.
        sha256: of the file.
        commit: of the repository, or how its name begins; None: not known.
    """

    repo: str
    path: str
    size: int
    sha256: str
    commit: str | None = None


@dataclass(frozen=True)
class WeightFile:
    """A file that an engine loads.

    Attributes:
        role: what it is.
        names: under which it is looked for, the first one is the one that is downloaded to.
        published: where it can be had; None: only from somebody who trained it.
        shared: several engines use it.
    """

    role: str
    names: tuple[str, ...]
    published: Published | None = None
    shared: bool = False


@dataclass(frozen=True)
class Entry:
    """A built-in engine.

    Attributes:
        name: by which it is chosen.
        target: module and class.
        good_at: one line for people.
        licence: of its weights.
        asks: whether the licence has to be accepted before the first use.
        memory: what it needs, one line for people.
        files: its weights; none: they are part of this program.
    """

    name: str
    target: str
    good_at: str
    licence: str
    asks: bool
    memory: str
    files: tuple[WeightFile, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the files that can be had."""
        return sum(file.published.size for file in self.files if file.published)


_VAE = WeightFile(
    "autoencoder",
    ("sd-vae-ft-mse/diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors",
     "sd-vae-ft-mse/diffusion_pytorch_model.bin", "diffusion_pytorch_model.bin"),
    Published(
        "stabilityai/sd-vae-ft-mse", "diffusion_pytorch_model.safetensors", 334_643_276,
        "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815", "31f26fdeee13",
    ),
    shared=True,
)  # fmt: skip
_WHISPER_OPENAI = WeightFile(
    "speech encoder",
    ("whisper/tiny.pt", "tiny.pt", "whisper-tiny/model.safetensors", "model.safetensors"),
    Published(
        "ByteDance/LatentSync-1.6", "whisper/tiny.pt", 75_572_083,
        "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9", "c42c7e6c8e9c",
    ),
    shared=True,
)  # fmt: skip
_WHISPER = WeightFile(
    "speech encoder",
    ("whisper-tiny/model.safetensors", "model.safetensors", "pytorch_model.bin", "whisper/tiny.pt", "tiny.pt"),
    Published(
        "openai/whisper-tiny", "model.safetensors", 151_061_672,
        "7ebd0e69e78190ffe1438491fa05cc1f5c1aa3a4c4db3bc1723adbb551ea2395", "169d4a4341b3",
    ),
    shared=True,
)  # fmt: skip


def _latentsync(version: str, side: int, published: Published, memory: str) -> Entry:
    return Entry(
        f"latentsync-{version}", "engines.latentsync.engine:LatentSync" + version.replace(".", ""),
        f"the most exact lips of the open networks, {side} px; slow",
        "OpenRAIL++ (free, also commercially, within its use restrictions), autoencoder and Whisper MIT", True, memory,
        (WeightFile("network", ("latentsync_unet.pt",), published), _VAE, _WHISPER_OPENAI),
    )  # fmt: skip


_WAV2LIP_CLASSES = {
    "wav2lip": "Wav2LipEngine", "wav2lip-gan": "Wav2LipGan", "wav2lip-256": "Wav2Lip256", "wav2lip-384": "Wav2Lip384",
}  # fmt: skip


def _wav2lip(name: str, names: tuple[str, ...], good_at: str, sha256: str = "", size: int = 0) -> Entry:
    published = Published("numz/wav2lip_studio", f"Wav2lip/{names[0]}", size, sha256) if sha256 else None
    return Entry(
        name, "engines.wav2lip.engine:" + _WAV2LIP_CLASSES[name], good_at,
        "research and personal use only, no commercial use (trained on LRS2)", True, "1 GB; any CPU or CUDA GPU",
        (WeightFile("network", names, published),),
    )  # fmt: skip


ENTRIES = {
    entry.name: entry
    for entry in (
        Entry(
            "lite", "engines.lite.engine:Lite", "two CPU cores, live frames, adaptation to the person",
            "as this project (see LICENSE and pretrained/MODEL_CARD.md)", False, "1 GB; any CPU or CUDA GPU",
        ),
        Entry(
            "sprites", "engines.sprites:Sprites", "lays drawn mouths over drawn faces; no network draws",
            "the bundled mouths are free to use", False, "200 MB; any CPU",
        ),
        _latentsync(
            "1.5", 256,
            Published(
                "ByteDance/LatentSync-1.5", "latentsync_unet.pt", 5_072_348_184,
                "6440b49a7ccceff56cdc001f5f17605216337f5bbd66fa360139768926e23f51", "32a20d29aead",
            ),
            "8 GB of GPU memory as published; 8 GB of memory on a CPU",
        ),
        _latentsync(
            "1.6", 512,
            Published(
                "ByteDance/LatentSync-1.6", "latentsync_unet.pt", 5_072_222_488,
                "0a478e89eb660f82da4c35dbdde8a5adfb27f99d1b4e50edd03729e1e98316d3", "c42c7e6c8e9c",
            ),
            "18 GB of GPU memory as published; 12 GB of memory on a CPU",
        ),
        Entry(
            "musetalk-1.5", "engines.musetalk.engine:MuseTalk", "one pass for each frame: real time on a large GPU",
            "weights for any purpose, also commercially (authors' README; CreativeML OpenRAIL-M on the hub)", True,
            "4 GB of GPU memory as published; 6 GB of memory on a CPU",
            (
                WeightFile(
                    "network", ("musetalkV15/unet.pth", "unet.pth"),
                    Published(
                        "TMElyralab/MuseTalk", "musetalkV15/unet.pth", 3_400_074_924,
                        "7ebf6c98c181e20838e4c0054e96e944ac60d5d692cc01db42839fe11b787007", "3ef28bc5cff0",
                    ),
                ),
                _VAE, _WHISPER,
            ),
        ),
        _wav2lip(
            "wav2lip", ("wav2lip.pth",), "sync above all, small and fast; soft mouths of 96 px",
            "b78b681b68ad9fe6c6fb1debc6ff43ad05834a8af8a62ffc4167b7b34ef63c37", 435_807_851,
        ),
        _wav2lip(
            "wav2lip-gan", ("wav2lip_gan.pth",), "as wav2lip, sharper, a little less in sync",
            "ca9ab7b7b812c0e80a6e70a5977c545a1e8a365a6c49d5e533023c034d7ac3d8", 435_801_865,
        ),
        _wav2lip("wav2lip-256", ("wav2lip256.pth", "wav2lip.pth"), "Wav2Lip's layout with more blocks, 256 px"),
        _wav2lip("wav2lip-384", ("wav2lip384.pth", "wav2lip.pth"), "Wav2Lip's layout with more blocks, 384 px"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Shelf:
    """Where engines' weights are looked for.

    Attributes:
        folder: holds a folder for each engine, or the files of one engine themselves.
    """

    folder: Path

    def find(self, name: str, file: WeightFile) -> Path | None:
        """A file of an engine, None where it is not there."""
        for folder in (self.folder / name, self.folder, self.folder / SHARED):
            for candidate in (folder / path for path in file.names):
                if candidate.is_file():
                    return candidate
        return None

    def missing(self, name: str) -> list[WeightFile]:
        """Files of an engine that are not there."""
        return [file for file in ENTRIES[name].files if self.find(name, file) is None]

    def accepted(self, name: str) -> bool:
        """Whether the licence of an engine was accepted here, or asks for nothing."""
        return not ENTRIES[name].asks or name in self._acceptances()

    def accept(self, name: str) -> None:
        """Take note that the licence of an engine was accepted."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.folder / _ACCEPTED) as path:
            told = self._acceptances() | {name: ENTRIES[name].licence}
            path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")

    def _acceptances(self) -> dict[str, str]:
        try:
            return dict(json.loads((self.folder / _ACCEPTED).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}

    def check(self, name: str) -> None:
        """Raise an InputError that says how to get a built-in engine which is not installed, or not accepted."""
        if missing := self.missing(name):
            files = ", ".join(file.names[0] for file in missing)
            where = f"({files} not found in {self.folder})"
            raise InputError(f"The engine {name} is not installed {where}; {_how(name)}.", "no-engine")
        if not self.accepted(name):
            raise InputError(
                f"The engine {name} may be used under this licence: {ENTRIES[name].licence}; accept it once with "
                f"python app.py --mode cli --get-engine {name} --accept-licence.",
                "no-engine",
            )


def _how(name: str) -> str:
    if all(file.published for file in ENTRIES[name].files):
        return f"get it with python app.py --mode cli --get-engine {name}, or name a folder with --engine-weights"
    return "put the file there, or name a folder with --engine-weights"
