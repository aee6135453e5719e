"""A processed dataset in pieces of limited size."""

import tarfile
from pathlib import Path

import pytest

from tools.pack_processed import main


@pytest.fixture
def processed(tmp_path: Path) -> Path:
    """Nine clips of 30 kB in two splits, and a file beside them."""
    folder = tmp_path / "processed"
    for number in range(9):
        clip = folder / ("train" if number < 7 else "val") / f"clip_{number} ü"
        clip.mkdir(parents=True)
        (clip / "tracks.npz").write_bytes(bytes([number]) * 29_000)
        (clip / "meta.json").write_text(f'{{"number": {number}}}')
    (folder / "train" / "index.json").write_text("{}")
    return folder


def test_all_of_it_arrives_and_no_piece_is_too_large(processed: Path, tmp_path: Path, capsys) -> None:
    pieces, there = tmp_path / "pieces", tmp_path / "there"
    assert main([str(processed), str(pieces), "--size", "0.11"]) == 0
    made = sorted(pieces.iterdir())
    assert len(made) >= 4
    assert capsys.readouterr().out.count(".tar") == len(made)
    for piece in made:
        assert piece.stat().st_size <= 110_000
        with tarfile.open(piece) as archive:
            archive.extractall(there, filter="data")
    known = {path.relative_to(processed): path.read_bytes() for path in processed.rglob("*") if path.is_file()}
    assert {path.relative_to(there): path.read_bytes() for path in there.rglob("*") if path.is_file()} == known


def test_a_clip_stays_in_one_piece(processed: Path, tmp_path: Path) -> None:
    main([str(processed), str(tmp_path / "pieces"), "--size", "0.08"])
    held = []
    for piece in (tmp_path / "pieces").iterdir():
        with tarfile.open(piece) as archive:
            held.append({Path(name).parts[1] for name in archive.getnames()})
    assert sum(len(names) for names in held) == len(set().union(*held))


@pytest.mark.parametrize(("more", "said"), [(["--split", "night"], "night is missing"), (["--size", "0.02"], "--size")])
def test_what_cannot_be_packed_is_named(processed: Path, tmp_path: Path, capsys, more: list[str], said: str) -> None:
    assert main([str(processed), str(tmp_path / "pieces"), *more]) == 2
    assert said in capsys.readouterr().err
