"""Types of method parameters. ``description`` and ``examples`` are what a user reads who sets another value."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from src.settings.groups import Count as Count

CodeBits = Annotated[int, Field(ge=2, le=8, description="an integer from 2 to 8", examples=["3"])]
Decay = Annotated[float, Field(ge=0, lt=1, description="a number from 0 to below 1", examples=["0.01"])]
FlagOrAuto = Annotated[bool | Literal["auto"], Field(description="true, false or auto", examples=["auto"])]
Fraction = Annotated[float, Field(gt=0, le=1, description="a number above 0 and at most 1", examples=["0.01"])]
FractionOrAuto = Annotated[
    Annotated[float, Field(gt=0, le=1)] | Literal["auto"],
    Field(description="a number above 0 and at most 1, or auto", examples=["auto"]),
]
Passes = Annotated[int, Field(ge=0, description="0 or a positive integer", examples=["3"])]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, description="a positive number", examples=["1.5"])]
Strength = Annotated[float, Field(ge=0, le=1, description="a number from 0 to 1", examples=["0.25"])]
Strengths = Annotated[
    Strength | dict[str, Strength],
    Field(description="a number from 0 to 1, or such numbers by name", examples=["{encoder: 0.25, default: 0.5}"]),
]
