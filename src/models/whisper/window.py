"""Whether a feature extractor's window is the encoder's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from src.models.files import PROCESSORS_REMEDY, wrong

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, WhisperFeatureExtractor


def check_window(extractor: WhisperFeatureExtractor, config: PreTrainedConfig) -> None:
    """Whether the encoder has a position for every second frame, and a channel for every mel bin.

    Raises:
        UserError: it has not.
    """
    frames = 2 * config.max_source_positions
    if extractor.nb_max_frames != frames:
        problem = f"the feature extractor makes {extractor.nb_max_frames} frames but the encoder takes {frames}"
        raise wrong(problem, "Set chunk_length in preprocessor_config.json to max_source_positions / 50")
    if extractor.feature_size != config.num_mel_bins:
        bins = f"{extractor.feature_size} mel bins, the encoder takes {config.num_mel_bins}"
        raise wrong(f"the feature extractor makes {bins}", PROCESSORS_REMEDY)
