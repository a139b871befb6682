"""Applies a method to a model: every planned linear is rounded, replaced by its dequantized self, and measured."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer

from src.calib.capture import Calibration
from src.calib.task import BlockTask
from src.calib.walk import Walker, WalkOptions
from src.errors import UserError
from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.machine.progress import progress
from src.methods.asked import check_inputs, check_structure, input_bits, weight_plan
from src.methods.base import Method, Rounded, Transformed
from src.methods.begun import Begun
from src.methods.block_journal import BlockJournal
from src.methods.ends import planned_ends
from src.methods.propagation import check_propagation, link_by_link, sees_quantized
from src.methods.tuning import Tuning
from src.methods.workbench import ReferenceCost, Workbench
from src.models.graph import Block, Component, Linear
from src.models.speech import SpeechModel
from src.quant.checkpoint import round_to_storage
from src.quant.ends import RoundedEnds, chosen_ends
from src.quant.fake import check_key_rotation, kv_layer_factory
from src.quant.figures import input_distribution, weight_figures
from src.quant.inputs import PER_TOKEN, InputGrid, static_grid
from src.quant.linear import install
from src.quant.link_statistics import LinkStatistics
from src.quant.restore import restore
from src.quant.structure import Edit, key_rotation
from src.settings import FULL_PRECISION, Settings


class Quantizer:
    """Quantizes one model in place with one method.

    Args:
        speech: the model, at full precision.
        method: how.
        settings: bit-config, scope, seed, and which inputs a block sees.
        calibration: clips and teacher tokens, for methods that use them.
        fp_statistics: ``fp_statistics(gram)``, the original model's link statistics with or without Gram matrices,
            if they are at hand; asked for before anything is changed.
        journal: keeps the transformed model, the plan and finished blocks, so that a run that was killed goes on from
            the last of them.

    After :meth:`run`, ``weights`` holds the codes of what was quantized, ``inputs`` the grids of inputs that are not
    rounded per token and asymmetrically, ``edits`` the structural changes, and ``rows`` the layer table.
    """

    def __init__(
        self,
        speech: SpeechModel,
        method: Method,
        settings: Settings,
        calibration: Calibration | None = None,
        fp_statistics: Callable[[bool], Mapping[str, LinkStatistics]] | None = None,
        journal: BlockJournal | None = None,
        reference: ReferenceCost | None = None,
    ) -> None:
        self._speech = speech
        self._journal = journal
        self._method = method
        check_inputs(method, settings)
        check_propagation(method, settings)
        check_structure(method, speech.graph, settings)
        self._settings = settings
        self._abits = input_bits(speech.graph, settings)
        plan = weight_plan(speech.graph, settings)
        ends = {end.path: end.spec for end in chosen_ends(speech.graph, speech.module, settings)}
        self._bench = Workbench(
            speech,
            plan,
            self._abits,
            settings.kvbits,
            calibration,
            settings.seed,
            fp_statistics,
            ends=ends,
            reference=reference,
        )
        self._sees_quantized = sees_quantized(method, settings)
        self._notes: Mapping[str, str] = {}
        self.weights: dict[str, QuantizedWeight] = {}
        self.inputs: dict[str, InputGrid] = {}
        self.rows: list[dict[str, Any]] = []

    @property
    def expected_nats(self) -> float | None:
        """Nats a token that rounding should cost, where the method's plan foretells it."""
        return self._bench.expected_nats

    @property
    def edits(self) -> list[Edit]:
        """Structural changes made by the method's transform, in order."""
        return self._bench.edits

    def run(self) -> None:
        """Transforms the model, rounds its ends and, block by block, its linears; then the method may tune all.

        Raises:
            UserError: the method's transform found nothing it could act on, or rotates keys that are rounded per
                channel.
        """
        with self._journal.threads() if self._journal else nullcontext():
            self._run()

    def _run(self) -> None:
        method, bench = self._method, self._bench
        measures = bool(method.needs.statistics) or self._settings.static_inputs or self._settings.corrects_biases
        walks = method.needs.block_inputs or method.needs.token_weights or (measures and self._sees_quantized)
        before = self._statistics() if measures and not walks and not method.needs.rewrites else None
        transformed = self._begin()
        teacher = copy.deepcopy(self._speech) if method.needs.tunes else None
        outputs = method.output_weights(bench)
        self._notes = transformed.notes
        ends = planned_ends(self._speech, self._settings, bench.calibration, bench.ends)
        round_to_storage(self._speech.module, [*(path for path, spec in bench.plan.items() if spec), *ends.paths])
        if self._sees_quantized:
            ends.round()
        if walks:
            self._walk(ends, outputs)
        elif before is not None:
            self._round_blocks(_divided(before, transformed.scales))
        else:
            self._round_blocks(self._statistics() if measures else {})
        if not self._sees_quantized:
            ends.round()
        if teacher is not None:
            self._tune(teacher)
        self.weights |= ends.weights
        self.rows += [*ends.rows, *_adapter_rows(self._speech)]

    def _begin(self) -> Transformed:
        """Transforms the model and plans its grids, unless an earlier run did."""
        method, bench = self._method, self._bench
        begun = self._journal.begun(bench.module) if self._journal else None
        if begun is not None:
            bench.fp_statistics, bench.edits = None, list(begun.edits)
            bench.expected_nats = begun.expected_nats
            self._plan(begun.plan)
            return begun.transformed
        transformed = method.transform(bench)
        bench.fp_statistics = None
        if method.needs.transforms and not transformed.acted:
            problem = f"{method.name} found nothing in {self._speech.name} that it could transform"
            raise UserError("method", problem, "Widen scope, or use its rounder alone")
        check_key_rotation(key_rotation(bench.module), self._settings.key_group)
        plan = method.plan(bench)
        self._plan(plan)
        if self._journal:
            begun = Begun(transformed, plan, tuple(bench.edits), bench.expected_nats)
            self._journal.begin(begun, bench.module, transforms=method.needs.transforms)
        return transformed

    def _plan(self, plan: Mapping[str, WeightSpec | None]) -> None:
        bench = self._bench
        bench.ends |= {path: spec for path, spec in plan.items() if path in bench.ends and spec is not None}
        bench.plan = {path: spec for path, spec in plan.items() if path not in bench.ends}

    def _walk(self, ends: RoundedEnds, outputs: Mapping[str, Sequence[Tensor]]) -> None:
        method, bench = self._method, self._bench
        if bench.calibration is None:
            raise ValueError("the method, or activation.range=static, needs calibration data")
        gram = "gram" in method.needs.statistics
        quantized = self._sees_quantized
        kv_layer = self._kv_layer() if quantized else None
        cross = quantized and "cross_gram" in method.needs.statistics
        options = WalkOptions(
            gram,
            refresh=quantized,
            targets=method.needs.block_outputs,
            cross=cross,
            link_by_link=link_by_link(method, self._settings),
            kv_layer=kv_layer,
            label="quantize",
        )
        walker = Walker(
            self._speech,
            bench.calibration,
            options,
            weigh=partial(method.token_weights, bench),
            rare=partial(method.rare_rows, bench),
            outputs=outputs,
            unrounded=ends.unrounded,
            finished=self._journal.holds if self._journal else lambda _: False,
        )
        walker.walk(self._round_block)

    def _tune(self, teacher: SpeechModel) -> None:
        """Lets the method learn about the whole model; the layer table's figures of weights follow.

        They are errors against the teacher's weights; where blocks were transformed before they were rounded, no weight
        of the teacher is what was rounded, and there are none.
        """
        kept, keep = (self._journal.tuned(), self._journal.keep_tuned) if self._journal else ({}, lambda _: None)
        self.weights = dict(self._method.tune(self._bench, Tuning(teacher, self.weights, kept, keep)))
        for row in self.rows:
            if row["linear"] in self.weights:
                W = teacher.module.get_parameter(f"{row['linear']}.weight").detach().float()
                figures = weight_figures(W, self.weights[row["linear"]].dequantize())
                row |= dict.fromkeys(figures) if self._method.needs.rescales else figures

    def _kv_layer(self) -> Callable[[], DynamicLayer] | None:
        bits, rotation = self._settings.kvbits, key_rotation(self._speech.module)
        return None if bits == FULL_PRECISION else kv_layer_factory(bits, rotation, self._settings.key_group)

    def _statistics(self) -> Mapping[str, LinkStatistics]:
        return self._bench.statistics(gram="gram" in self._method.needs.statistics)

    def _round_blocks(self, statistics: Mapping[str, LinkStatistics]) -> None:
        for block in progress(self._speech.graph.blocks, "quantize, blocks"):
            self._round_block(BlockTask(block, self._speech.block(block), [], statistics=statistics))

    def _round_block(self, task: BlockTask) -> None:
        """Rounds the linears of one block, unless an earlier run did, and adds one row each to the layer table."""
        if self._journal and self._journal.holds(task.block):
            self._take_back(task.block, self._journal)
            return
        before = len(self.edits)
        fitted = self._method.fit_block(self._bench, task)
        for linear in progress(task.block.linears, task.block.path):
            link = self._speech.graph.link_of(linear.path).name
            row = self._round(linear, task.statistics.get(link), fitted.get(linear.path))
            self.rows.append({**row, "link": link})
        if self._journal:
            self._journal.keep(
                task.block, self._speech.module, self.weights, self.edits[before:], self.inputs, self.rows
            )

    def _take_back(self, block: Block, journal: BlockJournal) -> None:
        """Makes the block what an earlier run made of it."""
        stored = restore(
            self._speech, journal.file(block), {each.path: self._abits[each.path] for each in block.linears}
        )
        self.weights |= stored.weights
        self.inputs |= stored.inputs
        self._bench.edits += stored.edits
        self.rows += journal.rows(block)

    def _round(self, linear: Linear, statistics: LinkStatistics | None, fitted: Rounded | None) -> dict[str, Any]:
        spec, abits = self._bench.plan[linear.path], self._abits[linear.path]
        read = input_distribution(statistics)
        row: dict[str, Any] = {
            "linear": linear.path,
            "component": linear.component.value,
            "shape": [linear.out_features, linear.in_features],
            "wbits": spec.bits if spec else FULL_PRECISION,
            "abits": abits,
            "rows": statistics.count if statistics else 0,
            "input_distribution": asdict(read) if read else None,
            "notes": [self._notes[linear.path]] if linear.path in self._notes else [],
        }
        if spec is None:
            install(self._speech.module, linear.path, None, abits, grid=self._input_grid(linear, statistics))
            skipped = "out of scope" if any(self._bench.plan.values()) else "weights stay at 16 bits"
            return {**row, "bits_per_weight": float(FULL_PRECISION), "skipped": skipped}
        W = self._speech.module.get_parameter(f"{linear.path}.weight").detach().float().clone()
        rounded = fitted or self._method.round(W, spec, statistics.of(linear) if statistics else None)
        Q = rounded.weight.dequantize()
        exact = rounded.weight.exact_inputs
        install(self._speech.module, linear.path, Q, abits, exact, self._input_grid(linear, statistics, exact))
        self.weights[linear.path] = rounded.weight
        if self._settings.corrects_biases:
            self._correct_bias(linear, W - Q, statistics)
        return {
            **row,
            "bits_per_weight": rounded.weight.bits_per_weight,
            "stored_bytes": rounded.weight.nbytes,
            **weight_figures(W, Q, statistics.gram if statistics else None),
            "exact_inputs": 0 if rounded.weight.dense is None else len(rounded.weight.dense.columns),
            "outliers": 0 if rounded.weight.sparse is None else len(rounded.weight.sparse.values),
            "notes": [*row["notes"], *rounded.notes],
        }

    def _correct_bias(self, linear: Linear, error: Tensor, statistics: LinkStatistics | None) -> None:
        """``b + (W - Q) E[x]``, where there is a bias: sec. 4.2 of Nagel et al., arXiv 1906.04721."""
        bias = self._speech.module.get_submodule(linear.path).bias
        if bias is None:
            return
        if statistics is None or statistics.powers is None:
            raise ValueError(f"no calibration input was measured for {linear.path}")
        bias.copy_((bias + error @ statistics.powers[0].to(error)).half())  # the value it is stored with

    def _input_grid(self, linear: Linear, statistics: LinkStatistics | None, exact: Tensor | None = None) -> InputGrid:
        """What the linear's input is rounded to, as the settings ask; remembered where it is not the default."""
        bits, chosen = self._abits[linear.path], self._settings.activation
        if bits == FULL_PRECISION or (chosen.range == "token" and not chosen.symmetric):
            return PER_TOKEN
        if chosen.range == "token":
            grid = InputGrid(symmetric=True)
        else:
            if statistics is None or statistics.minimum is None or statistics.maximum is None:
                raise ValueError(f"no calibration input was measured for {linear.path}")
            ends = statistics.minimum, statistics.maximum
            grid = static_grid(*ends, bits, symmetric=chosen.symmetric, exact=exact)
        self.inputs[linear.path] = grid
        return grid


def _adapter_rows(speech: SpeechModel) -> list[dict[str, Any]]:
    """A row of the layer table that says what is not done, where there is such a matrix."""
    path = speech.graph.adapter
    if path is None:
        return []
    return [
        {
            "linear": path,
            "component": Component.ENCODER.value,
            "shape": list(speech.module.get_parameter(f"{path}.weight").shape),
            "wbits": FULL_PRECISION,
            "abits": FULL_PRECISION,
            "rows": 0,
            "bits_per_weight": float(FULL_PRECISION),
            "link": None,
            "input_distribution": None,
            "skipped": "an adapter between encoder and decoder: weight and input stay at 16 bits",
            "notes": [],
        }
    ]


def _divided(statistics: Mapping[str, LinkStatistics], scales: Mapping[str, Tensor]) -> dict[str, LinkStatistics]:
    """``statistics`` by link name after the inputs of the links in ``scales`` were divided by these."""
    return {name: each.divided(scales[name]) if name in scales else each for name, each in statistics.items()}
