"""Recordings that come in clips under one reference: whether they can be scored as they are, and in which order."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from src.data.inventory import Clip
from src.data.rows import Rows, ids, names
from src.data.sources import open_rows
from src.errors import UserError

if TYPE_CHECKING:
    from src.data.corpora import Corpus

log = logging.getLogger(__name__)

_NUMBER: Final = re.compile(r"[0-9]+")
_SHOWN: Final = 4  # clips of an error


def require_whole_sessions(corpus: Corpus) -> None:
    """Checks that recordings whose clips share one reference can be scored: all clips are there, and agree on it.

    Warns where the clips of a recording are numbered otherwise than their rows, in whose order they are joined.

    Raises:
        UserError: a draw, bad audio or an empty reference leaves clips out, references differ, or a recording has the
            name of another clip.
    """
    sessions: dict[str, list[Clip]] = {}
    for clip in sorted(corpus.clips, key=lambda clip: clip.row):
        if clip.session is not None:
            sessions.setdefault(clip.session, []).append(clip)
    if not sessions:
        return
    for session, clips in sessions.items():
        if len({clip.text for clip in clips}) > 1:
            problem = f"the clips of session {session!r} have different references"
            raise UserError("dataset", problem, "Give all of them the session's, or use dataset.columns.session=null")
    if corpus.report["subset"]:
        problem = "a draw of clips leaves parts of sessions out, whose references are of the whole"
        raise UserError("dataset.limit", problem, "Use dataset.limit=null")
    if corpus.bad:
        left_out = ", ".join([*list(corpus.bad)[:_SHOWN], *(["..."] if len(corpus.bad) > _SHOWN else [])])
        problem = f"on_bad_audio=skip left out {left_out}, so that sessions are no longer whole"
        raise UserError("on_bad_audio", problem, "Repair these clips, or remove their whole sessions")
    alone = next((clip.id for clip in corpus.clips if clip.session is None and clip.id in sessions), None)
    if alone is not None:
        problem = f"a session and a clip of no session are both called {alone!r}"
        raise UserError("dataset", problem, "Rename one of them, or use dataset.columns.session=null")
    rows = open_rows(corpus.dataset)
    _require_references(corpus, rows, sessions)
    _warn_of_order(corpus.dataset.name, rows, sessions)


def _require_references(corpus: Corpus, rows: Rows, sessions: dict[str, list[Clip]]) -> None:
    """No clip of a session was dropped for having no reference of its own."""
    dropped, columns = set(corpus.dropped), corpus.dataset.columns
    recordings = names(rows, str(columns.session))
    for row, name in enumerate(ids(rows, columns.id) if dropped else ()):
        if name in dropped and recordings[row] in sessions:
            problem = f"{rows.where(row)}: a clip of session {recordings[row]!r} has no reference, but others of it do"
            raise UserError("dataset", problem, "Give every clip of a session the session's reference")


def _warn_of_order(name: str, rows: Rows, sessions: dict[str, list[Clip]]) -> None:
    audio = rows.audio_names()
    wrong = {session: pair for session, clips in sessions.items() if (pair := _misnumbered(audio, clips)) is not None}
    if wrong:
        session, (earlier, later) = next(iter(wrong.items()))
        log.warning(
            "%s: the clips of a session are joined in the order of their rows, but those of %s are numbered otherwise: "
            "%r comes before %r. Sort the rows by time if their order is that of a listing",
            name,
            repr(session) + (f" and {len(wrong) - 1} more sessions" if len(wrong) > 1 else ""),
            earlier,
            later,
        )


def _misnumbered(audio: Sequence[str | None], clips: Sequence[Clip]) -> tuple[str, str] | None:
    """The first two neighbours whose ids, or audio's names, differ in numbers alone and count down."""
    for found in ([clip.id for clip in clips], [audio[clip.row] or "" for clip in clips]):
        if len({_NUMBER.sub("0", name) for name in found}) == 1:
            for earlier, later in pairwise(found):
                if _numbers(earlier) > _numbers(later):
                    return earlier, later
    return None


def _numbers(name: str) -> list[int]:
    return [int(number) for number in _NUMBER.findall(name)]
