"""Corpora: where utterances come from and how their audio becomes waveforms."""
