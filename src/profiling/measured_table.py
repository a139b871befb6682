"""How stored measurements (:class:`src.profiling.measured.MeasuredRow`) are shown. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

COLUMNS: Final = (
    "runtime",
    "weights",
    "MiB",
    "load ms",
    "encoder ms",
    "1st token ms",
    "ms/token",
    "p95",
    "RTF",
    "peak MiB",
    "step MB",
    "GB/s",
    "% of memory",
    "load",
)


def cells(row: Mapping[str, Any]) -> list[str]:
    """A stored row as text, in the order of :data:`COLUMNS`."""
    told = row["measurement"]
    size = row["file_bytes"]
    return [
        f"{row['runtime']} {told['version']}",
        row["precision"],
        "-" if size is None else f"{size / 2**20:.1f}",
        "-" if told["load_ms"] is None else f"{told['load_ms']:.0f}",
        f"{told['encoder_ms']:.1f}",
        f"{told['first_token_ms']:.1f}",
        f"{told['token_ms']:.2f}",
        f"{told['token_p95_ms']:.2f}",
        f"{told['rtf']:.3f}",
        f"{told['peak_rss_mib']:.0f}",
        f"{row['step_bytes'] / 1e6:.1f}",
        f"{row['bandwidth_gbs']:.1f}",
        f"{100 * row['bandwidth_share']:.0f}",
        "-" if told.get("load") is None else f"{told['load']:.2f}",
    ]


def place(timed: Mapping[str, Any]) -> str:
    """What may stand in one table: the same utterance, on the same machine with as many threads."""
    devices = " and ".join(dict.fromkeys(row["measurement"]["device"] for row in timed["rows"]))
    return (
        f"{timed['seconds']:g} s of audio, {timed['tokens']} tokens, batch 1, {timed['repeats']} runs: medians; "
        f"{timed['rows'][0]['measurement']['threads']} threads of {devices}."
    )


def about(timed: Mapping[str, Any]) -> str:
    """What the rows of one stored result have in common: the utterance, the machine, and what its memory gives."""
    memory = timed["bandwidth"]
    return (
        f"{place(timed)} step MB: what a decode step reads. load: processors that others kept busy. "
        f"Memory: {memory['read_gbs']:.1f} GB/s read, {memory['copy_gbs']:.1f} copy ({memory['how']})."
    )
