"""Tests here draw weights and activations without a generator of their own: the same ones in every run and order."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
