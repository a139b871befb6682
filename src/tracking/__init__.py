"""Mirror of one point in Weights & Biases; the only folder that imports wandb, and not before something is logged.

The records on disk are the truth, so a tracker that fails never fails the job: the first failure is logged as a
warning, later ones as debug messages.
"""

from __future__ import annotations

from src.tracking.connection import RunInfo
from src.tracking.tracker import MAX_CLIP_SECONDS, MAX_CLIPS, NullTracker, Tracker, open_tracker

__all__ = ["MAX_CLIPS", "MAX_CLIP_SECONDS", "NullTracker", "RunInfo", "Tracker", "open_tracker"]
