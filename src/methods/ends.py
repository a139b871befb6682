"""The rounder of a model's ends: a method that rounds single weights, from no more than Gram matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from torch import Tensor

from src.calib.capture import Calibration
from src.calib.end_inputs import end_statistics
from src.errors import UserError
from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.methods.base import Method, Needs
from src.methods.build import build_method
from src.models.speech import SpeechModel
from src.quant.ends import RoundedEnds, chosen_ends
from src.quant.link_statistics import LinkStatistics
from src.settings import Settings


def end_rounder(settings: Settings) -> Method | None:
    """What rounds embedding, head and front-end; None where they stay at 16 bits.

    Raises:
        UserError: it is no method, or does more than to round a weight into codes on grids.
    """
    if settings.ends is None:
        return None
    method = build_method(settings.ends, "ends")
    needs = method.needs
    if not method.quantizes or needs != Needs(statistics=needs.statistics & {"gram"}, propagation=needs.propagation):
        problem = f"{method.name} does more than to round single weights, or leaves them at 16 bits"
        raise UserError("ends", problem, "Use method@ends=rtn, or gptq or gptq_mse")
    return method


def planned_ends(
    speech: SpeechModel, settings: Settings, calibration: Calibration | None, specs: Mapping[str, WeightSpec]
) -> RoundedEnds:
    """The ends that ``settings`` choose, to be rounded to ``specs`` by what ``speech`` multiplies with them."""
    chosen = [replace(end, spec=specs[end.path]) for end in chosen_ends(speech.graph, speech.module, settings)]
    rounder = end_rounder(settings)
    if rounder is None or not chosen:
        return RoundedEnds(speech.module, {})
    statistics: Mapping[str, LinkStatistics] = {}
    if rounder.needs.statistics:
        if calibration is None:
            raise ValueError(f"{rounder.name} needs calibration data")
        statistics = end_statistics(speech, calibration, [end.path for end in chosen])
    return RoundedEnds(
        speech.module, {end: partial(_rounded, rounder, end.spec, statistics.get(end.path)) for end in chosen}
    )


def _rounded(
    rounder: Method, spec: WeightSpec, statistics: LinkStatistics | None, W: Tensor
) -> tuple[QuantizedWeight, tuple[str, ...]]:
    rounded = rounder.round(W, spec, statistics)
    return rounded.weight, (f"rounded by {rounder.name}", *rounded.notes)
