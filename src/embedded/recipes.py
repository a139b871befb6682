"""The embedded recognisers by the name of their folder in ``models/``."""

from __future__ import annotations

from src.embedded.moonshine import MoonshineRecipe
from src.embedded.recipe import Recipe
from src.embedded.whisper import WhisperRecipe

RECIPES: dict[str, type[Recipe]] = {"whisper": WhisperRecipe, "moonshine": MoonshineRecipe}
