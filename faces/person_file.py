"""What is known of a person as named arrays, so that it can be kept in a file and needs not be found again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np

from faces.bank import Mouth, MouthBank
from faces.mouth_shape import Neutral
from faces.person import Liveliness, Person

_FIELDS = tuple(field.name for field in fields(Mouth))


def pack_person(person: Person) -> dict[str, np.ndarray]:
    """Arrays by name; see `unpack_person`."""
    parts = {"bank": person.bank.mouths, "faces": person.faces}
    packed = {"neutral_mouth": person.neutral.mouth, "neutral_pose": person.neutral.pose}
    packed["lively"] = np.array([person.lively.opening, person.lively.width])
    for part, mouths in parts.items():
        packed |= {f"{part}_{name}": np.stack([getattr(mouth, name) for mouth in mouths]) for name in _FIELDS}
    return packed


def unpack_person(packed: Mapping[str, np.ndarray]) -> Person:
    """The person of `pack_person`.

    Raises:
        KeyError: an array is missing.
    """
    bank = MouthBank(tuple(_mouths(packed, "bank")))
    neutral = Neutral(packed["neutral_mouth"], packed["neutral_pose"])
    return Person(neutral, bank, tuple(_mouths(packed, "faces")), Liveliness(*packed["lively"].tolist()))


def _mouths(packed: Mapping[str, np.ndarray], part: str) -> Sequence[Mouth]:
    columns = [packed[f"{part}_{name}"] for name in _FIELDS]
    return [Mouth(*(float(v) if np.ndim(v) == 0 else v for v in row)) for row in zip(*columns, strict=True)]
