"""The stages, in the order they run; export and measure only where a runtime is chosen, latency with profile."""

from __future__ import annotations

from src.stages.base import Stage
from src.stages.calibrate import Calibrate
from src.stages.evaluate import Evaluate
from src.stages.export import Export
from src.stages.latency import Latency
from src.stages.measure import Measure
from src.stages.profile import Profile
from src.stages.quantize import Quantize

ALL_STAGES: tuple[Stage, ...] = (Calibrate(), Quantize(), Export(), Evaluate(), Profile(), Latency(), Measure())
