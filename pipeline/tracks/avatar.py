"""Somebody's avatar (.glb, .vrm): which of its blend shapes move the mouth, and how far at each frame."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pygltflib as g

from pipeline.track import Track
from pipeline.tracks.arkit import blend_shapes
from pipeline.tracks.visemes import OCULUS, VRM, oculus_weights, vrm_weights
from utils.helpers import InputError

LARGEST_BYTES = 512 * 2**20
_FEWEST = {"arkit": 4, "oculus": 8, "vowels": 3}  # shapes of a set that an avatar must have for it to be taken
_VOWEL_NAMES = {
    "aa": ("aa", "a", "fclmtha", "mouthaa", "あ"), "ih": ("ih", "i", "fclmthi", "mouthih", "い"),
    "ou": ("ou", "u", "fclmthu", "mouthou", "う"), "ee": ("ee", "e", "fclmthe", "mouthee", "え"),
    "oh": ("oh", "o", "fclmtho", "mouthoh", "お"),
}  # fmt: skip
_OLD_PRESETS = dict(zip("aiueo", VRM, strict=True))  # names of VRM 0.x


@dataclass(frozen=True, eq=False)
class Driven:
    """A mesh that is moved.

    Attributes:
        nodes: numbers of the nodes that show it.
        weights: (F, T), of all its morph targets.
    """

    nodes: tuple[int, ...]
    weights: np.ndarray


def load_avatar(path: Path) -> g.GLTF2:
    """Read an avatar with all of its data in one file.

    Raises:
        InputError: it is no such file, it is damaged or too large, or parts of it are in other files.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}; give an avatar as .glb or .vrm.")
    if path.stat().st_size > LARGEST_BYTES:
        raise InputError(f"The avatar {path.name} is larger than {LARGEST_BYTES // 2**20} MB; give a smaller one.")
    with path.open("rb") as file:
        if file.read(4) != b"glTF":
            raise InputError(f"The file {path.name} is no binary glTF; give an avatar as .glb or .vrm.")
    try:
        scene = g.GLTF2.load_binary(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises anything for a damaged file
        what = type(error).__name__
        raise InputError(f"The avatar {path.name} cannot be read ({what}); export it once more.") from error
    if scene is None or len(scene.buffers) != 1 or any(part.uri for part in (*scene.buffers, *scene.images)):
        raise InputError(f"Parts of the avatar {path.name} are in other files; export it as one .glb.")
    return scene


def driven_meshes(scene: g.GLTF2, track: Track) -> list[Driven]:
    """Meshes with shapes that a mouth needs, in the richest set that the avatar has: ARKit, Oculus, VRM's vowels.

    Raises:
        InputError: it has none of them.
    """
    named = {number: _target_names(mesh) for number, mesh in enumerate(scene.meshes)}
    bound = _bound_vowels(scene)
    for name, table in _sets(track):
        found = _by_name(scene, named, table, len(track), _FEWEST[name])
        if found:
            return found
        if name == "vowels" and bound:
            return _by_binds(scene, bound, table, len(track))
    known = sorted({name for names in named.values() for name in names if name})
    has = f"it has {', '.join(known[:6])}{' ...' if len(known) > 6 else ''}" if known else "it has no blend shapes"
    raise InputError(
        f"The avatar has no blend shapes of a mouth ({has}): jawOpen and others as in ARKit, viseme_aa and others as "
        "in Oculus, or VRM's vowels are needed."
    )


def _sets(track: Track) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Sets of shapes, the richest first: simplified name -> weights (F,)."""
    oculus, vowels = oculus_weights(track), vrm_weights(track)
    arkit = {_simple(name): values for name, values in blend_shapes(track).items()}
    visemes = {_simple(f"viseme_{name}"): oculus[:, i] for i, name in enumerate(OCULUS) if name != "sil"}
    spoken = {_simple(other): vowels[:, i] for i, name in enumerate(VRM) for other in _VOWEL_NAMES[name]}
    return [("arkit", arkit), ("oculus", visemes), ("vowels", spoken | dict(zip(VRM, vowels.T, strict=True)))]


def _simple(name: str) -> str:
    """A shape's name without case, marks and prefixes: mouthSmile_L, Mouth_Smile_Left -> mouthsmileleft."""
    name = re.sub(r"^.*[.:](?=\w)", "", name.replace("vrc.v_", "viseme_"))
    name = re.sub(r"[_ ]([LR])$", lambda m: "Left" if m[1] == "L" else "Right", name)
    return re.sub(r"[\s_\-]", "", name).lower()


def _target_names(mesh: g.Mesh) -> list[str]:
    """Names of a mesh's morph targets; "" where nobody named them."""
    count = max((len(primitive.targets or ()) for primitive in mesh.primitives), default=0)
    extras = [mesh.extras, *(primitive.extras for primitive in mesh.primitives)]
    names = next((e["targetNames"] for e in extras if isinstance(e, dict) and e.get("targetNames")), [])
    return [*(str(name) for name in names[:count]), *[""] * (count - len(names))]


def _nodes_of(scene: g.GLTF2, mesh: int) -> tuple[int, ...]:
    return tuple(number for number, node in enumerate(scene.nodes) if node.mesh == mesh)


def _still(scene: g.GLTF2, mesh: int, targets: int, frames: int) -> np.ndarray:
    """Weights (F, T) of a mesh as it is; a list that is too short or too long is repaired."""
    resting = np.zeros(targets)
    given = np.array(scene.meshes[mesh].weights or [], float)[:targets]
    resting[: len(given)] = given
    return np.tile(resting, (frames, 1))


def _by_name(
    scene: g.GLTF2, named: Mapping[int, list[str]], table: Mapping[str, np.ndarray], frames: int, fewest: int
) -> list[Driven]:
    """Meshes whose shapes are named as in a table; none where too few of all are."""
    found, hits = [], set()
    for mesh, names in named.items():
        known = [(place, _simple(name)) for place, name in enumerate(names) if name and _simple(name) in table]
        nodes = _nodes_of(scene, mesh)
        if known and nodes:
            weights = _still(scene, mesh, len(names), frames)
            for place, name in known:
                weights[:, place] = table[name]
                hits.add(name)
            found.append(Driven(nodes, weights))
    return found if len(hits) >= fewest else []


def _bound_vowels(scene: g.GLTF2) -> list[tuple[str, int, int, float]]:
    """What VRM's vowels move: vowel, mesh, morph target, and how far at most."""
    extensions = scene.extensions or {}
    found = []
    presets = (extensions.get("VRMC_vrm") or {}).get("expressions", {}).get("preset", {})
    for vowel in VRM:
        for bind in (presets.get(vowel) or {}).get("morphTargetBinds", []):
            found.append((vowel, scene.nodes[bind["node"]].mesh, bind["index"], float(bind.get("weight", 1.0))))
    groups = (extensions.get("VRM") or {}).get("blendShapeMaster", {}).get("blendShapeGroups", [])
    for group in groups:
        vowel = _OLD_PRESETS.get(str(group.get("presetName", "")).lower())
        for bind in group.get("binds", []) if vowel else []:
            found.append((vowel, bind["mesh"], bind["index"], float(bind.get("weight", 100.0)) / 100))
    return found


def _by_binds(
    scene: g.GLTF2, bound: list[tuple[str, int, int, float]], table: Mapping[str, np.ndarray], frames: int
) -> list[Driven]:
    weights: dict[int, np.ndarray] = {}
    for vowel, mesh, place, most in bound:
        if mesh not in weights:
            weights[mesh] = _still(scene, mesh, len(_target_names(scene.meshes[mesh])), frames)
        weights[mesh][:, place] += most * table[vowel]
    return [Driven(_nodes_of(scene, mesh), np.clip(values, 0, 1)) for mesh, values in weights.items()]
