"""Recordings that were cut into clips and have one reference: heard clip by clip, scored as one.

As the Open ASR leaderboard does with the calls of Earnings-22 since August 2026: what is heard in the clips is put
together in their order, before it is normalised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from src.data.transcripts import Transcript


def joined(transcripts: Iterable[Transcript]) -> list[Transcript]:
    """One transcript a session, named like it, in the place of its first clip; those of no session stay as they are."""
    parts: dict[tuple[bool, str], list[Transcript]] = {}
    for item in transcripts:
        parts.setdefault((True, item.session) if item.session else (False, item.id), []).append(item)
    return [_one(clips) if is_session else clips[0] for (is_session, _), clips in parts.items()]


def _one(clips: Sequence[Transcript]) -> Transcript:
    ordered = sorted(clips, key=lambda clip: clip.position)
    first = ordered[0]
    speakers = {clip.speaker for clip in ordered}
    return Transcript(
        id=first.session or first.id,
        reference=first.reference,
        hypothesis=" ".join(filter(None, (clip.hypothesis for clip in ordered))),
        seconds=sum(clip.seconds for clip in ordered),
        tokens=sum(clip.tokens for clip in ordered),
        capped=any(clip.capped for clip in ordered),
        speaker=speakers.pop() if len(speakers) == 1 else None,
        long_form=next((clip.long_form for clip in ordered if clip.long_form), None),
    )
