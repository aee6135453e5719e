"""glTF 2.0: the movement as an animation of blend shapes, on a head of our own or on somebody's avatar.

Written with pygltflib (MIT). The avatar may be a .glb or .vrm; see `pipeline.tracks.avatar` for the shapes it needs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pygltflib as g

from pipeline.track import Track
from pipeline.tracks.arkit import blend_shapes
from pipeline.tracks.avatar import Driven, driven_meshes, load_avatar
from pipeline.tracks.head import COLOURS, NAMES, Part, sample_head
from utils.helpers import InputError

ANIMATION = "speech"
_KINDS = {np.dtype(np.float32): g.FLOAT, np.dtype(np.uint16): g.UNSIGNED_SHORT}


def write_glb(track: Track, path: Path, onto: Path | None = None) -> None:
    """Write one binary file.

    Args:
        track: the movement.
        path: .glb or .vrm to write.
        onto: an avatar (.glb, .vrm); None = the sample head.

    Raises:
        InputError: the avatar cannot be read or has no shapes that a mouth needs.
    """
    if onto is None and path.suffix.lower() == ".vrm":
        raise InputError("A .vrm needs an avatar: give one with --onto, or write a .glb with the sample head.")
    _animated(track, onto).save_binary(path)


def write_gltf(track: Track, path: Path, onto: Path | None = None) -> None:
    """As `write_glb`, as one JSON file with its data inside."""
    scene = _animated(track, onto)
    scene.convert_buffers(g.BufferFormat.DATAURI)
    scene.save_json(path)


def _animated(track: Track, onto: Path | None) -> g.GLTF2:
    if onto is None:
        scene, driven = _head_scene(track)
    else:
        scene = load_avatar(onto)
        driven = driven_meshes(scene, track)
    blob = _Blob(scene)
    times = blob.add(track.times.astype(np.float32), "SCALAR", limits=True)
    animation = g.Animation(name=ANIMATION, samplers=[], channels=[])
    for mesh in driven:
        weights = blob.add(mesh.weights.astype(np.float32).ravel(), "SCALAR")
        animation.samplers.append(g.AnimationSampler(input=times, output=weights, interpolation=g.ANIM_LINEAR))
        for node in mesh.nodes:
            target = g.AnimationChannelTarget(node=node, path="weights")
            animation.channels.append(g.AnimationChannel(sampler=len(animation.samplers) - 1, target=target))
    scene.animations.append(animation)
    blob.close()
    return scene


class _Blob:
    """Adds arrays to the binary data of a scene.

    Args:
        scene: all of whose data is in its first, binary buffer, or that has none yet.
    """

    def __init__(self, scene: g.GLTF2) -> None:
        self._scene, self._data = scene, bytearray(scene.binary_blob() or b"")

    def add(self, values: np.ndarray, kind: str, target: int | None = None, limits: bool = False) -> int:
        """Number of the new accessor of values (N,) or (N, 3)."""
        self._data += b"\0" * (-len(self._data) % 4)
        view = g.BufferView(buffer=0, byteOffset=len(self._data), byteLength=values.nbytes, target=target)
        self._data += np.ascontiguousarray(values).tobytes()
        self._scene.bufferViews.append(view)
        accessor = g.Accessor(
            bufferView=len(self._scene.bufferViews) - 1,
            componentType=_KINDS[values.dtype],
            count=len(values),
            type=kind,
        )
        if limits:
            accessor.min = np.atleast_1d(values.min(axis=0)).tolist()
            accessor.max = np.atleast_1d(values.max(axis=0)).tolist()
        self._scene.accessors.append(accessor)
        return len(self._scene.accessors) - 1

    def close(self) -> None:
        """Put the data into the scene."""
        self._data += b"\0" * (-len(self._data) % 4)
        if not self._scene.buffers:
            self._scene.buffers.append(g.Buffer())
        self._scene.buffers[0].byteLength = len(self._data)
        self._scene.set_binary_blob(bytes(self._data))


def _head_scene(track: Track) -> tuple[g.GLTF2, list[Driven]]:
    """The sample head, and the weights of its moving mesh."""
    scene = g.GLTF2(asset=g.Asset(version="2.0", generator="Lip Sync", copyright="Sample head: CC0"))
    blob, parts = _Blob(scene), sample_head()
    materials = {colour: number for number, colour in enumerate(COLOURS)}
    for colour, rgb in COLOURS.items():
        surface = g.PbrMetallicRoughness(baseColorFactor=[*rgb, 1.0], metallicFactor=0.0, roughnessFactor=0.8)
        scene.materials.append(g.Material(name=colour, pbrMetallicRoughness=surface, doubleSided=True))
    moving, still = g.Mesh(name="Face", primitives=[]), g.Mesh(name="Features", primitives=[])
    for part in parts:
        mesh = moving if part.moves else still
        mesh.primitives.append(_primitive(blob, part, materials[part.colour]))
    moving.weights, moving.extras = [0.0] * len(NAMES), {"targetNames": list(NAMES)}
    scene.meshes += [moving, still]
    scene.nodes += [g.Node(name="Face", mesh=0), g.Node(name="Features", mesh=1), g.Node(name="Head", children=[0, 1])]
    scene.scenes.append(g.Scene(nodes=[2]))
    scene.scene = 0
    blob.close()
    shapes = blend_shapes(track)
    return scene, [Driven((0,), np.stack([shapes[name] for name in NAMES], axis=1))]


def _primitive(blob: _Blob, part: Part, material: int) -> g.Primitive:
    positions = blob.add(part.points, "VEC3", g.ARRAY_BUFFER, limits=True)
    normals = blob.add(_normals(part.points, part.triangles), "VEC3", g.ARRAY_BUFFER)
    indices = blob.add(part.triangles.ravel(), "SCALAR", g.ELEMENT_ARRAY_BUFFER)
    targets = [
        g.Attributes(POSITION=blob.add(part.moves[name], "VEC3", g.ARRAY_BUFFER, limits=True))
        for name in (NAMES if part.moves else ())
    ]
    return g.Primitive(
        attributes=g.Attributes(POSITION=positions, NORMAL=normals),
        indices=indices,
        material=material,
        targets=[{"POSITION": target.POSITION} for target in targets] or None,
    )


def _normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Of each point (N, 3) float32, of length 1: the mean of its triangles, the larger ones counting more."""
    corners = points[triangles].astype(np.float64)
    faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros(points.shape)
    for corner in range(3):
        np.add.at(total, triangles[:, corner], faces)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-12, total / np.maximum(length, 1e-12), [0.0, 0.0, 1.0]).astype(np.float32)
