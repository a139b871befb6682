"""Optuna's log of a study in checked lines. Importing this needs Optuna."""

from __future__ import annotations

from typing import Any

from optuna.storages.journal import BaseJournalBackend

from src.storage.journal import Journal


class CheckedLog(BaseJournalBackend):
    """One entry a line; the caller sees to it that it is one process's (:func:`src.sweepers.study.alone`)."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self._journal.values[log_number_from:]
        return entries

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        for entry in logs:
            self._journal.append(entry)
