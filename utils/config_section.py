"""What all parts of the configuration have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

Fraction = Field(ge=0.0, le=1.0)


class Section(BaseModel):
    """A part of the configuration: no unknown keys, no changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
