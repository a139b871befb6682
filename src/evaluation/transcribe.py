"""From utterances to transcripts: decode the audio, compute features, generate, batch by batch and resumably."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from src.data.corpora import Utterance
from src.evaluation.decode import batches, greedy
from src.evaluation.longform import Decoded, Form, announce, decode_long, form_of
from src.models.speech import SpeechModel
from src.quant.fake import kv_layer_factory
from src.quant.structure import key_rotation
from src.runtime import progress
from src.settings import FULL_PRECISION


@dataclass(frozen=True)
class Transcript:
    """One utterance as the model wrote it.

    Attributes:
        id: utterance id.
        reference: the corpus's transcript, as stored there.
        hypothesis: the model's transcript, before normalisation.
        seconds: length of the audio.
        tokens: number of generated tokens, end token not counted.
        capped: whether it was cut off at the family's limit on new tokens, in any of its windows.
        long_form: what was done with audio longer than the model's window (see :mod:`src.evaluation.longform`):
            ``sequential``, ``segments`` or ``truncated``; None where it fits.
        speaker: who speaks, where the corpus tells.
    """

    id: str
    reference: str
    hypothesis: str
    seconds: float
    tokens: int
    capped: bool
    long_form: Form | None
    speaker: str | None


def transcribe(
    speech: SpeechModel,
    utterances: Sequence[Utterance],
    *,
    suppress: bool,
    kv_bits: int = FULL_PRECISION,
    key_group: int | None = None,
) -> tuple[list[Tensor], list[list[int]]]:
    """Features and greedily generated tokens (no prompt, no end token) of one batch of utterances.

    Only the first window of longer utterances is heard.

    ``kv_bits`` and ``key_group`` say how the cache is rounded: see :func:`~src.quant.fake.kv_layer_factory`.
    """
    waveforms = [utterance.waveform()[: speech.window] for utterance in utterances]
    features = speech.features(waveforms)
    samples = [len(waveform) for waveform in waveforms]
    kv_layer = kv_layer_factory(kv_bits, key_rotation(speech.module), key_group)
    tokens = greedy(speech, features, samples, suppress=suppress, kv_layer=kv_layer)
    return features, tokens


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
) -> list[Transcript]:
    """Transcripts of all utterances in corpus order.

    Of utterances longer than the model's window, only the first window is transcribed with ``truncate``.

    Every finished batch is appended to ``journal`` and flushed, so that a killed run continues with the next batch and
    ends with the transcripts of an unbroken one.
    """
    done = _read_journal(journal)
    plan = batches(utterances, batch_size)
    announce(speech, utterances, truncate=truncate)
    kv_layer = kv_layer_factory(kv_bits, key_rotation(speech.module), key_group)
    with journal.open("a", encoding="ascii") as file:
        for number in progress(range(len(plan)), "evaluate"):
            if number in done:
                continue
            batch = [utterances[index] for index in plan[number]]
            forms = [form_of(speech, utterance.samples, truncate=truncate) for utterance in batch]
            long = sum(form in ("sequential", "segments") for form in forms)  # they come first
            heard = decode_long(speech, batch[:long], batch_size=batch_size, suppress=suppress, kv_layer=kv_layer)
            if batch[long:]:
                _, tokens = transcribe(speech, batch[long:], suppress=suppress, kv_bits=kv_bits, key_group=key_group)
                heard += [_decoded(speech, *pair) for pair in zip(batch[long:], tokens, strict=True)]
            done[number] = [_transcript(*each) for each in zip(batch, heard, forms, strict=True)]
            line = {"batch": number, "transcripts": [asdict(item) for item in done[number]]}
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
    by_index = {
        index: item for number, chosen in enumerate(plan) for index, item in zip(chosen, done[number], strict=True)
    }
    return [by_index[index] for index in range(len(utterances))]


def _decoded(speech: SpeechModel, utterance: Utterance, tokens: list[int]) -> Decoded:
    cap = speech.max_new_tokens(min(utterance.samples, speech.window))
    return Decoded(speech.text(tokens).strip(), len(tokens), capped=len(tokens) >= cap)


def _transcript(utterance: Utterance, decoded: Decoded, form: Form | None) -> Transcript:
    return Transcript(
        id=utterance.id,
        reference=utterance.text,
        hypothesis=decoded.text,
        seconds=utterance.seconds,
        tokens=decoded.tokens,
        capped=decoded.capped,
        long_form=form,
        speaker=utterance.speaker,
    )


def _read_journal(journal: Path) -> dict[int, list[Transcript]]:
    """Finished batches; a last line cut short by a kill is dropped from the file."""
    done: dict[int, list[Transcript]] = {}
    if not journal.exists():
        return done
    whole, _, cut = journal.read_bytes().rpartition(b"\n")
    if cut:
        os.truncate(journal, len(whole) + 1 if whole else 0)
    for line in filter(None, whole.split(b"\n")):
        entry = json.loads(line)
        done[entry["batch"]] = [Transcript(**item) for item in entry["transcripts"]]
    return done


def save_transcripts(transcripts: Sequence[Transcript], path: Path) -> None:
    """One JSON object a line."""
    lines = [json.dumps(asdict(item), sort_keys=True) for item in transcripts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def load_transcripts(path: Path) -> list[Transcript]:
    """Reads what :func:`save_transcripts` wrote."""
    return [Transcript(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
