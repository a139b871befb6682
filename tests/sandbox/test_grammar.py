"""The grammar's size and the separation of what is trained on from what is tested on."""

import random
from itertools import pairwise

from tests.sandbox.making.grammar import MAX_WORDS, MIN_WORDS, Grammar, distinct_sentences
from tests.sandbox.making.script import SIZES, script
from tests.sandbox.making.voices import SEEN, UNSEEN, deliver


def test_the_grammar_knows_over_a_thousand_words_and_uses_them() -> None:
    words = Grammar.read().words()
    assert len(words) >= 1_000
    spoken = {word for sentence in distinct_sentences(8_000, seed=3) for word in sentence.split()}
    assert spoken == words


def test_every_symbol_is_defined_and_reachable() -> None:
    forms = Grammar.read().forms
    used = {token.lower() for rule in forms.values() for form in rule for token in form if token.isupper()} - {"a"}
    assert used | {"sentence"} == set(forms)


def test_sentences_are_short_lower_case_and_plain() -> None:
    for sentence in distinct_sentences(500, seed=5):
        assert MIN_WORDS <= len(sentence.split()) <= MAX_WORDS
        assert set(sentence) <= set("abcdefghijklmnopqrstuvwxyz ")


def test_articles_agree_with_the_next_word() -> None:
    pairs = [pair for text in distinct_sentences(3_000, seed=7) for pair in pairwise(text.split())]
    assert ("an", "umbrella") in pairs or ("an", "ancient") in pairs
    assert not [word for article, word in pairs if article == "a" and word[0] in "aeio"]


def test_no_two_splits_share_a_sentence() -> None:
    sentences = [line.text for split in SIZES for line in script(split)]
    assert len(set(sentences)) == len(sentences) == sum(SIZES.values())


def test_training_voices_and_unseen_voices_are_disjoint() -> None:
    assert not set(SEEN) & set(UNSEEN)
    rng = random.Random(0)
    assert all(deliver(rng, unseen_share=0.0).voice not in UNSEEN for _ in range(300))
    assert all(deliver(rng, unseen_share=1.0).voice in UNSEEN for _ in range(300))
