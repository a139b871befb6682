"""Edge ASR: post-training quantization of small speech recognisers, measured."""
