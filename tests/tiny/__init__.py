"""Random models of every family, small enough that a test runs in milliseconds.

A family declares its own in the module with its name (:class:`~tests.tiny.declared.Tiny` tells what), and the tests of
what every family owes find it there. Whisper's and Moonshine's are what most other tests run on.
"""

from __future__ import annotations

from importlib import import_module

from src.models.families import FAMILIES
from tests.tiny.declared import Tiny, build_random, model_settings
from tests.tiny.moonshine import MOONSHINE, tiny_moonshine
from tests.tiny.whisper import WHISPER, tiny_whisper

__all__ = [
    "MOONSHINE",
    "TINY",
    "WHISPER",
    "build_random",
    "model_settings",
    "tiny_moonshine",
    "tiny_whisper",
]

TINY: dict[str, Tiny] = {name: import_module(f"{__name__}.{name}").TINY for name in FAMILIES}
