"""Which attention function a model calls: transformers' private setting, touched here alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel


@contextmanager
def attention_replaced(model: PreTrainedModel, name: str, only: str | None = None) -> Iterator[None]:
    """Within it, ``model`` calls the attention registered as ``name``; where ``only`` is given, only instead of that.

    ``set_attn_implementation`` would load kernels and check names. The setting is as before afterwards.

    Raises:
        RuntimeError: this transformers has no such setting; without it ``name`` would silently not be called.
    """
    if not hasattr(model.config, "_attn_implementation"):
        raise RuntimeError("transformers has no config._attn_implementation; use the version of pyproject.toml")
    before = model.config._attn_implementation
    model.config._attn_implementation = name if only in (None, before) else before
    try:
        yield
    finally:
        model.config._attn_implementation = before
