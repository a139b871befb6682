"""The sandbox recognisers by the name of their folder in ``models/``."""

from __future__ import annotations

from tests.sandbox.making.moonshine import MoonshineRecipe
from tests.sandbox.making.recipe import Recipe
from tests.sandbox.making.whisper import WhisperRecipe

RECIPES: dict[str, type[Recipe]] = {"whisper": WhisperRecipe, "moonshine": MoonshineRecipe}
