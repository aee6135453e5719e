"""Pack a processed dataset into tar files of limited size, to send it to another machine in pieces.

    python tools/pack_processed.py processed_dataset pieces --split train val --size 60
    for piece in pieces/*.tar; do tar -xf "$piece" -C there; done

A clip's files stay together in one piece, so each piece can be used as soon as it has arrived. Crops are compressed
already, so the pieces are not.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, this file sees tools/ only

from utils.helpers import InputError, atomic_path  # noqa: E402

_BLOCK = 512  # of the tar format; files are rounded up to it
_HEADER = 3 * _BLOCK  # of a file, with a name that is not plain ASCII
_END = 20 * _BLOCK  # at the end of an archive
MB = 1_000_000


def main(arguments: list[str] | None = None) -> int:
    """Pack what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("processed", type=Path, help="folder that data/preprocess.py wrote")
    parser.add_argument("output", type=Path, help="folder of the pieces")
    parser.add_argument("--split", nargs="+", default=["train", "val"], help="its parts (default: %(default)s)")
    parser.add_argument("--size", type=float, default=60, metavar="MB", help="of a piece (default: %(default)s)")
    args = parser.parse_args(arguments)
    try:
        for piece in pack(args.processed, args.split, args.output, round(args.size * MB)):
            print(f"{piece}  {piece.stat().st_size / MB:.1f} MB")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def pack(processed: Path, splits: list[str], output: Path, limit: int) -> Iterator[Path]:
    """Write the pieces and yield each one.

    Args:
        processed: folder with a folder for each split, and in it a folder for each clip.
        splits: names of the splits.
        output: folder of the pieces `piece_000.tar`, ...; others of that name are replaced.
        limit: bytes of a piece at most.

    Raises:
        InputError: a split is missing or empty, or a clip is larger than a piece.
    """
    clips = [clip for split in splits for clip in _clips(processed / split)]
    output.mkdir(parents=True, exist_ok=True)
    for number, members in enumerate(_in_pieces(clips, limit)):
        target = output / f"piece_{number:03d}.tar"
        with atomic_path(target) as path, tarfile.open(path, "w") as archive:
            for member in members:
                archive.add(member, arcname=member.relative_to(processed))
        yield target


def _clips(split: Path) -> list[Path]:
    found = sorted(split.iterdir()) if split.is_dir() else []
    if not found:
        raise InputError(f"{split} is missing or empty; give a folder that data/preprocess.py wrote, and its splits.")
    return found


def _in_pieces(clips: list[Path], limit: int) -> Iterator[list[Path]]:
    """The clips in their order, cut where a piece would get too large."""
    piece: list[Path] = []
    size = _END
    for clip in clips:
        grown = _packed_size(clip)
        if grown + _END > limit:
            raise InputError(f"{clip.name} alone takes {grown / MB:.1f} MB; allow larger pieces with --size.")
        if size + grown > limit:
            yield piece
            piece, size = [], _END
        piece.append(clip)
        size += grown
    yield piece


def _packed_size(path: Path) -> int:
    """Bytes that a file or a folder takes in a tar file at most, names of ordinary length."""
    inside = path.rglob("*") if path.is_dir() else ()
    sizes = [item.stat().st_size if item.is_file() else 0 for item in (path, *inside)]
    return sum(_HEADER + -(-size // _BLOCK) * _BLOCK for size in sizes)


if __name__ == "__main__":
    sys.exit(main())
