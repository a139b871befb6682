"""Edge ASR: post-training quantization of small speech recognisers, measured."""

import sys
from types import TracebackType

_before = sys.excepthook


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An interrupt that nothing catches ends a command in one line, whatever it is doing, imports included."""
    if isinstance(error, KeyboardInterrupt):
        from src.machine.interrupts import tell

        tell(error)
    _before(kind, error, trace)


sys.excepthook = _hook
