from __future__ import annotations

import numpy as np
import pytest

from src.scoring.holm import holm


def test_adjusted_p_values_are_those_of_r() -> None:
    """``p.adjust(c(0.01, 0.02, 0.03, 0.005, 0.5), "holm")`` of R 4.3."""
    assert holm([0.01, 0.02, 0.03, 0.005, 0.5]) == pytest.approx([0.04, 0.06, 0.06, 0.025, 0.5])
    assert holm([]) == []


def test_true_hypotheses_are_rejected_in_one_family_of_twenty() -> None:
    random = np.random.default_rng(0)
    families = random.uniform(size=(2_000, 20))
    rejected = [min(holm(list(family))) <= 0.05 for family in families]
    assert np.mean(rejected) == pytest.approx(0.05, abs=0.015)
