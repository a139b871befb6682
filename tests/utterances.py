"""The clips of a data set, as tests ask for them."""

from __future__ import annotations

from src.data.corpora import open_corpus
from src.data.selection import Selection
from src.data.utterance import Utterance
from src.settings import DatasetSettings


def load_utterances(settings: DatasetSettings, seed: int) -> list[Utterance]:
    """The split's utterances in the order of their ids, or a random ``limit`` of them drawn by ``seed``."""
    return open_corpus(Selection(settings, settings.limit, seed), None, "fail").utterances()
