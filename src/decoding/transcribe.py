"""From utterances to transcripts: decode the audio, compute features, generate, batch by batch and resumably."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from src.data.transcripts import LongForm, Transcript
from src.data.utterance import Utterance
from src.decoding.clock import Clock
from src.decoding.decode import batches, greedy, warm_up
from src.decoding.longform import Decoded, Search, announce, decode_long, form_of
from src.decoding.prefetch import ahead
from src.machine.progress import progress
from src.models.speech import SpeechModel
from src.quant.fake import kv_layer_factory
from src.quant.structure import key_rotation
from src.storage.journal import Journal, digest, program, values

# Transcripts of one batch, and what its line of the journal tells beside them.
Worked = tuple[list[Transcript], dict[str, Any]]


def transcribe(
    speech: SpeechModel, utterances: Sequence[Utterance], *, suppress: bool
) -> tuple[list[Tensor], list[list[int]]]:
    """Features and greedily generated tokens (no prompt, no end token) of one batch of utterances.

    Only the first window of longer utterances is heard.
    """
    features = speech.features([utterance.waveform()[: speech.window] for utterance in utterances])
    samples = [min(utterance.samples, speech.window) for utterance in utterances]
    return features, greedy(speech, features, samples, suppress=suppress)


def transcribe_corpus(
    speech: SpeechModel,
    utterances: Sequence[Utterance],
    journal: Path,
    *,
    batch_size: int,
    suppress: bool,
    kv_bits: int,
    key_group: int | None = None,
    truncate: bool = False,
    by_clip: bool = False,
    basis: Mapping[str, Any] | None = None,
    label: str = "evaluate",
) -> list[Transcript]:
    """Transcripts of all utterances in corpus order.

    Of utterances longer than the model's window, only the first window is transcribed with ``truncate``. Those that fit
    half of it are heard in half of it with ``by_clip`` (:meth:`~src.models.speech.SpeechModel.fits_half`).

    Every finished batch is appended to the :class:`~src.storage.journal.Journal` at ``journal``, so that a killed run
    continues with the next batch and ends with the transcripts of an unbroken one. So are its seconds, of which
    :func:`journal_seconds` tells the sum. ``basis`` says what the transcripts depend on that is not told here, such as
    the very weights; ``label`` is what the work is called where its progress is shown.
    """

    def half(utterance: Utterance) -> bool:
        return by_clip and speech.fits_half(utterance.samples)

    plan = batches(utterances, batch_size, half)
    basis = {
        **(basis or {}),
        "batch_size": batch_size,
        "suppress": suppress,
        "truncate": truncate,
        "by_clip": by_clip,
        "kv_bits": kv_bits,
        "key_group": key_group,
        "device": str(speech.device),
    }

    def work(left: Sequence[Sequence[Utterance]]) -> Generator[Worked]:
        announce(speech, utterances, truncate=truncate)
        todo = [_Batch.of(speech, chosen, truncate) for chosen in left]
        kv_layer = kv_layer_factory(kv_bits, key_rotation(speech.module), key_group)
        warm_up(speech, batch_size)
        with closing(ahead(speech, [batch.short for batch in todo], half)) as prepared:
            for batch in todo:
                clock = Clock(speech.device)
                with clock.part("total"):
                    with clock.part("wait"):
                        ready = next(prepared)
                    search = partial(greedy, speech, suppress=suppress, kv_layer=kv_layer, clock=clock)
                    heard = decode_long(speech, batch.long, batch_size=batch_size, search=search)
                    heard += _decode_short(speech, batch.short, [each.features for each in ready], search)
                    transcripts = batch.transcripts(heard)
                clock.seconds["audio"] = sum(each.audio_seconds for each in ready)
                clock.seconds["features"] = sum(each.feature_seconds for each in ready)
                yield transcripts, {"seconds": clock.seconds}

    return resumably(utterances, plan, journal, basis, work, label)


def resumably(
    utterances: Sequence[Utterance],
    plan: Sequence[Sequence[int]],
    journal: Path,
    basis: Mapping[str, Any],
    work: Callable[[Sequence[Sequence[Utterance]]], Generator[Worked]],
    label: str,
) -> list[Transcript]:
    """Transcripts of all utterances in their order, from batches of which each is in the journal once it is done.

    Args:
        utterances: the test set.
        plan: positions of the utterances of each batch.
        journal: its file.
        basis: plain data that the transcripts depend on, beside the utterances and the code.
        work: takes those batches that are left to do, unless there are none; yields for each what came out.
        label: what the work is called where its progress is shown.
    """
    told = digest([[item.id, item.samples, item.text] for item in utterances])
    kept = Journal(journal, {**program(), **basis, "utterances": told})
    done = {line["batch"]: [Transcript(**item) for item in line["transcripts"]] for line in kept.values}
    left = [number for number in range(len(plan)) if number not in done]
    with closing(work([[utterances[index] for index in plan[number]] for number in left])) as worked:
        for number in progress(left, f"{label}, batches", before=len(done)):
            done[number], beside = next(worked)
            kept.append({"batch": number, **beside, "transcripts": [asdict(item) for item in done[number]]})
    by_index = {
        index: item for number, chosen in enumerate(plan) for index, item in zip(chosen, done[number], strict=True)
    }
    return [by_index[index] for index in range(len(utterances))]


@dataclass(frozen=True)
class _Batch:
    """Utterances that are worked on together: those decoded in several windows come first.

    Attributes:
        utterances: longest first.
        forms: what is done with each; see :func:`~src.decoding.longform.form_of`.
    """

    utterances: list[Utterance]
    forms: list[LongForm | None]

    @classmethod
    def of(cls, speech: SpeechModel, utterances: Sequence[Utterance], truncate: bool) -> _Batch:
        """The batch of ``utterances``, longest first."""
        forms = [form_of(speech, utterance.samples, truncate=truncate) for utterance in utterances]
        return cls(list(utterances), forms)

    @property
    def windows(self) -> int:
        """Utterances that take several windows."""
        return sum(form in ("sequential", "segments") for form in self.forms)

    @property
    def long(self) -> list[Utterance]:
        """Those that take several windows."""
        return self.utterances[: self.windows]

    @property
    def short(self) -> list[Utterance]:
        """Those of which one window is heard."""
        return self.utterances[self.windows :]

    def transcripts(self, heard: Sequence[Decoded]) -> list[Transcript]:
        return [transcript(*each) for each in zip(self.utterances, heard, self.forms, strict=True)]


def _decode_short(
    speech: SpeechModel, utterances: Sequence[Utterance], features: list[Tensor], search: Search
) -> list[Decoded]:
    samples = [min(utterance.samples, speech.window) for utterance in utterances]
    found = search(features, samples) if features else []
    return [
        Decoded(speech.text(tokens).strip(), len(tokens), capped=speech.is_capped(len(tokens), count))
        for count, tokens in zip(samples, found, strict=True)
    ]


def transcript(utterance: Utterance, decoded: Decoded, form: LongForm | None) -> Transcript:
    return Transcript(
        id=utterance.id,
        reference=utterance.text,
        hypothesis=decoded.text,
        seconds=utterance.seconds,
        tokens=decoded.tokens,
        capped=decoded.capped,
        speaker=utterance.speaker,
        long_form=form,
        session=utterance.session,
        position=utterance.position,
    )


def journal_seconds(journal: Path) -> dict[str, float]:
    """Seconds of all batches in a finished journal, however many runs it took.

    ``total`` is from asking for a batch's features to its text: ``wait`` for them, ``encode``, ``decode`` and making
    text of tokens. ``audio`` (decoding it) and ``features`` are what a worker spent on them, mostly beside it.
    """
    total: dict[str, float] = defaultdict(float)
    for line in values(journal):
        for part, seconds in line["seconds"].items():
            total[part] += seconds
    return {part: round(seconds, 3) for part, seconds in sorted(total.items())}
