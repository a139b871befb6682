"""The process a job runs in: device, seeds and memory."""

from __future__ import annotations

import ctypes
import random
from contextlib import suppress

import torch

from src.errors import UserError
from src.machine.logs import route_libraries

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # numbers of malloc.h


def prepare(device: str, seed: int) -> None:
    """Checks the device and seeds every generator.

    Raises:
        UserError: the device is unknown or not there.
    """
    try:
        kind = torch.device(device)
    except RuntimeError:
        raise UserError("device", f"{device!r} is no device", "Use device=cpu, device=cuda or device=cuda:0") from None
    if kind.type == "cuda" and not torch.cuda.is_available():
        raise UserError("device", f"{device!r} was asked for, but torch sees no CUDA device", "Use device=cpu")
    keep_freed_memory()
    random.seed(seed)
    torch.manual_seed(seed)
    route_libraries()


def keep_freed_memory() -> None:
    """Lets glibc keep what tensors of a few megabytes leave, and hand it out again.

    By default every such tensor is memory mapped anew, and getting its pages takes longer than computing what is in it.
    """
    _glibc("mallopt", _M_MMAP_THRESHOLD, 32 << 20)  # the most that it takes
    _glibc("mallopt", _M_TRIM_THRESHOLD, 256 << 20)


def release_memory() -> None:
    """Gives freed memory back to the system, where what comes next needs it in other sizes."""
    _glibc("malloc_trim", 0)


def _glibc(function: str, *arguments: int) -> None:
    with suppress(OSError, AttributeError):  # another C library
        getattr(ctypes.CDLL("libc.so.6"), function)(*arguments)
