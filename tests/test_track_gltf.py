"""Movement as glTF: on the sample head and on avatars; read back by Khronos' validator and played by three.js."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pygltflib
import pytest

from pipeline.track import Track
from pipeline.tracks.arkit import blend_shapes
from pipeline.tracks.formats import write_track
from pipeline.tracks.head import NAMES, sample_head
from pipeline.tracks.visemes import OCULUS, VRM, oculus_weights, vrm_weights
from tests.browser import browser, served
from tests.conftest import REPO
from tests.test_tracks import track_of
from utils.helpers import InputError

NODE = REPO / "tests" / "node"
SAID = "m a p _ _ _ o t s u _ _ f i l a"


@pytest.fixture(scope="module")
def track() -> Track:
    return track_of(SAID)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tests/node and its packages; skipped where there is no node, or no registry to get them from."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no node and npm: apt-get install nodejs npm")
    if (NODE / "node_modules" / "three").is_dir():
        return NODE
    folder = shutil.copytree(NODE, tmp_path_factory.mktemp("node") / "node")
    try:
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=180, capture_output=True
        )
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"npm cannot install tests/node/package.json: {error}")
    return folder


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, track: Track) -> Path:
    path = tmp_path_factory.mktemp("gltf") / "head.glb"
    write_track(track, path)
    return path


def avatar(path: Path, names: list[str], extensions: dict | None = None) -> Path:
    """The sample head, whose first shapes are named anew, without its animation."""
    scene = pygltflib.GLTF2.load_binary(str(path.with_name("head.glb")))
    scene.animations = []
    scene.meshes[0].extras = {"targetNames": [*names, *(f"other{i}" for i in range(len(NAMES)))][: len(NAMES)]}
    scene.extensions, scene.extensionsUsed = extensions or {}, list(extensions or {})
    scene.save_binary(path)
    return path


def weights_in(path: Path) -> dict[str, np.ndarray]:
    """Name of a shape -> its animated weights, read with pygltflib."""
    scene = pygltflib.GLTF2.load_binary(str(path))
    (sampler,) = scene.animations[0].samplers
    accessor = scene.accessors[sampler.output]
    start = scene.bufferViews[accessor.bufferView].byteOffset
    values = np.frombuffer(scene.binary_blob()[start:], np.float32, accessor.count).reshape(-1, len(NAMES))
    return dict(zip(scene.meshes[0].extras["targetNames"], values.T, strict=True))


def test_the_sample_head_is_closed_where_it_should_be_and_opens(head: Path, track: Track) -> None:
    weights = weights_in(head)
    assert all(np.allclose(weights[name], values, atol=1e-6) for name, values in blend_shapes(track).items())
    lips = sample_head()[0]
    ring = lips.points[:48]
    upper, lower = ring[12], ring[36]
    jaw = lips.moves["jawOpen"]
    assert abs(upper[1] - lower[1]) < 0.02
    assert (upper + jaw[12])[1] - (lower + jaw[36])[1] > 0.2
    closed = jaw + lips.moves["mouthClose"]
    assert abs((upper + closed[12])[1] - (lower + closed[36])[1]) < 0.03


@pytest.mark.parametrize(
    ("names", "key", "which"),
    [
        (["Jaw_Open", "Mouth_Smile_L", "mouthSmile_R", "mouthPucker", "blendShape1.mouthFunnel"], "Jaw_Open", "arkit"),
        ([f"vrc.v_{name.lower()}" for name in OCULUS], "vrc.v_pp", "oculus"),
        (["Fcl_MTH_A", "Fcl_MTH_I", "Fcl_MTH_U", "Fcl_MTH_E", "Fcl_MTH_O"], "Fcl_MTH_A", "vowels"),
    ],
)
def test_avatars_of_several_makes(head: Path, track: Track, names: list[str], key: str, which: str) -> None:
    onto, moved = avatar(head.with_name(f"{which}.glb"), names), head.with_name(f"moved_{which}.glb")
    write_track(track, moved, onto)
    wanted = {
        "arkit": lambda: blend_shapes(track)["jawOpen"],
        "oculus": lambda: oculus_weights(track)[:, OCULUS.index("PP")],
        "vowels": lambda: vrm_weights(track)[:, VRM.index("aa")],
    }[which]()
    weights = weights_in(moved)
    assert np.allclose(weights[key], wanted, atol=1e-5) and weights["other0"].max() == 0


NEW = {"VRMC_vrm": {"specVersion": "1.0", "expressions": {"preset": {
    vowel: {"morphTargetBinds": [{"node": 0, "index": place, "weight": 1.0}]} for place, vowel in enumerate(VRM)
}}}}  # fmt: skip
OLD = {"VRM": {"blendShapeMaster": {"blendShapeGroups": [
    {"presetName": name, "binds": [{"mesh": 0, "index": place, "weight": 100}]} for place, name in enumerate("aiueo")
]}}}  # fmt: skip


@pytest.mark.parametrize("extensions", [NEW, OLD])
def test_vrm_says_itself_what_its_vowels_move(head: Path, track: Track, extensions: dict) -> None:
    onto = avatar(head.with_name("in.vrm"), [f"shape{i}" for i in range(5)], extensions)
    write_track(track, head.with_name("out.vrm"), onto)
    weights = weights_in(head.with_name("out.vrm"))
    assert all(np.allclose(weights[f"shape{i}"], vrm_weights(track)[:, i], atol=1e-5) for i in range(5))
    assert list(pygltflib.GLTF2.load_binary(str(head.with_name("out.vrm"))).extensions) == list(extensions)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no file"),
        (b"no avatar at all", "no binary glTF"),
        (b"glTF\x02\0\0\0\xff\0\0\0{", "cannot be read"),
        ("shapeless", "no blend shapes of a mouth"),
    ],
)
def test_a_wrong_avatar_is_one_sentence(head: Path, track: Track, content: bytes | str | None, said: str) -> None:
    path = head.with_name("wrong.glb")
    path.unlink(missing_ok=True)
    if content == "shapeless":
        avatar(path, ["frown", "blink"])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        write_track(track, head.with_name("none.glb"), path)
    assert not head.with_name("none.glb").exists()


def test_the_validator_finds_nothing(node: Path, head: Path, track: Track) -> None:
    write_track(track, head.with_name("text.gltf"))
    onto = avatar(head.with_name("a.glb"), list(NAMES))
    write_track(track, head.with_name("b.glb"), onto)
    files = [str(head.with_name(name)) for name in ("head.glb", "text.gltf", "b.glb")]
    run = subprocess.run(["node", "validate.mjs", *files], cwd=node, check=True, capture_output=True, text=True)
    for report in json.loads(run.stdout):
        assert report["issues"]["numErrors"] == report["issues"]["numWarnings"] == 0, report["issues"]["messages"]
        assert report["info"]["animationCount"] == 1 and report["info"]["hasMorphTargets"]


def test_three_js_plays_the_head_and_a_vrm(node: Path, head: Path, track: Track) -> None:
    onto = avatar(head.with_name("in2.vrm"), [f"shape{i}" for i in range(5)], _whole_vrm())
    write_track(track, head.with_name("played.vrm"), onto)
    frames = [int(np.argmax(track.curves.opening)), int(np.argmax(track.curves.protrusion)), 0]
    for name in ("head.glb", "played.vrm"):
        shutil.copy(head.with_name(name), node / name)
    with served(node) as address, browser(_with_3d) as driver:
        seen, _ = _play(driver, f"{address}/play.html", "head.glb", track.times[frames])
        shapes = blend_shapes(track)
        assert np.allclose([now["jawOpen"] for now in seen], shapes["jawOpen"][frames], atol=1e-3)
        seen, vrm = _play(driver, f"{address}/play.html", "played.vrm", track.times[frames])
        vowels = vrm_weights(track)[:, 0]
        assert np.allclose([now["shape0"] for now in seen], vowels[frames], atol=1e-3)
        assert {"aa", "ih", "ou", "ee", "oh"} <= set(vrm)
    for name in ("head.glb", "played.vrm"):
        (node / name).unlink()


def _with_3d(options: Any) -> None:
    for argument in ("use-angle=swiftshader", "enable-unsafe-swiftshader"):
        options.add_argument(f"--{argument}")


def _play(driver, page: str, name: str, times: np.ndarray) -> tuple[list[dict], list[str] | None]:  # noqa: ANN001
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get(f"{page}?file={name}&times={','.join(f'{time:.5f}' for time in times)}")
    WebDriverWait(driver, 90).until(lambda d: d.title == "ready")
    return driver.execute_script("return window.seen"), driver.execute_script("return window.vrm")


def _whole_vrm() -> dict:
    """What three-vrm asks of a VRM 1.0: a licence and the bones that every human has."""
    bones = (
        "hips spine head leftUpperLeg leftLowerLeg leftFoot rightUpperLeg rightLowerLeg rightFoot leftUpperArm "
        "leftLowerArm leftHand rightUpperArm rightLowerArm rightHand"
    ).split()
    meta = {"name": "head", "version": "1", "authors": ["test"], "licenseUrl": "https://vrm.dev/licenses/1.0/"}
    human = {"humanBones": {bone: {"node": 2} for bone in bones}}
    return {"VRMC_vrm": {**NEW["VRMC_vrm"], "meta": meta, "humanoid": human}}
