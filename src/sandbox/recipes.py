"""The sandbox recognisers by the name of their folder in ``models/``."""

from __future__ import annotations

from src.sandbox.moonshine import MoonshineRecipe
from src.sandbox.recipe import Recipe
from src.sandbox.whisper import WhisperRecipe

RECIPES: dict[str, type[Recipe]] = {"whisper": WhisperRecipe, "moonshine": MoonshineRecipe}
