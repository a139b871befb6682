from __future__ import annotations

import pytest
import torch
from torch import Tensor

from src.calib.capture import Calibration
from src.calib.task import BlockTask
from src.errors import UserError
from src.methods.apply import Quantizer
from src.methods.build import build_method
from src.methods.parts.rare_tokens import rare_tokens
from src.models.loading import load
from src.quant.link_statistics import LinkStatistics
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper

BUILDERS = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
SENTENCE = "and the Quixotic man said that Philammon had 17 of them."
RARE = "QuixoticPhilammon17"


@pytest.mark.parametrize("model", ["embedded_moonshine", "embedded_whisper"])
def test_the_pieces_of_rare_words_are_found(model: str) -> None:
    """In the vocabularies of the real models, behind the prompt."""
    speech = load(composed(f"model={model}").model, "cpu", 0)
    tokens = [*speech.prompt, *speech.tokens(SENTENCE)]
    rare = rare_tokens(speech, tokens)
    assert not any(rare[: len(speech.prompt)])
    found = speech.text([token for token, chosen in zip(tokens, rare, strict=True) if chosen])
    assert found.replace(" ", "") == RARE  # a space may be a token of its own, and belong to no word


def grams(build, calibration: Calibration, *overrides: str) -> dict[str, LinkStatistics]:  # type: ignore[no-untyped-def]
    """What the links of an unrounded model carry, by ``method=tarq``'s weighting."""
    settings = composed("method=tarq", "wbits=4", "calib.sequential=block", *overrides)
    method, seen = build_method(settings.method), {}
    kind = type(method)
    fit = kind.fit_block

    def spy(self, bench, task: BlockTask):  # type: ignore[no-untyped-def]
        seen.update({name: each for name, each in task.statistics.items() if name not in seen})
        return fit(self, bench, task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "fit_block", spy)
        Quantizer(build(), method, settings, calibration).run()
    return seen


@BUILDERS
def test_rare_tokens_count_as_much_as_common_ones_in_the_decoder_alone(
    build,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    """The first links of both halves of a model, before anything was rounded: encoder rows are untouched."""
    speech = build()
    calibration = noise_calibration(speech, 2)
    monkeypatch.setattr("src.methods.tarq.rare_tokens", lambda _, ids: [token % 5 == 0 for token in ids])
    found = grams(build, calibration, "scope.encoder=false", "method@method.rounder=gptq")
    monkeypatch.setattr("src.methods.tarq.rare_tokens", lambda _, ids: [False] * len(ids))
    plain = grams(build, calibration, "scope.encoder=false", "method@method.rounder=gptq")
    first, inside = (
        speech.graph.link_of(block.linears[0].path).name for block in (speech.graph.encoder[0], speech.graph.decoder[0])
    )
    assert torch.equal(found[first].gram, plain[first].gram)
    rows = _decoder_rows(build(), inside, calibration)
    rare = torch.tensor([token % 5 == 0 for ids in calibration.tokens for token in (*ids[1:], 1)])
    common, tail = (rows[each].T @ rows[each] for each in (~rare, rare))
    expected = common + common.trace() / tail.trace() * tail
    assert (found[inside].gram - expected).norm() < 2e-3 * expected.norm()  # weights are stored in float16
    assert (plain[inside].gram - expected).norm() > 0.1 * expected.norm()


def _decoder_rows(speech, name: str, calibration: Calibration) -> Tensor:  # type: ignore[no-untyped-def]
    """Inputs [tokens, in] of a link, clip by clip."""
    (link,) = (link for link in speech.graph.links if link.name == name)
    rows: list[Tensor] = []
    module = speech.module.get_submodule(link.linears[0])
    handle = module.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].flatten(0, -2)))
    with torch.inference_mode():
        for features, tokens in zip(calibration.features, calibration.tokens, strict=True):
            speech.forward_tokens(torch.tensor([tokens]), speech.encode([features]))
    handle.remove()
    return torch.cat(rows)


def test_a_rounder_that_reads_no_gram_matrix_is_refused() -> None:
    with pytest.raises(UserError, match=r"method\.rounder: rtn does not only round weights by a Gram matrix"):
        build_method(composed("method=tarq", "method@method.rounder=rtn").method)
