#!/usr/bin/env bash
# What the decoder is fed while calibrating, transcripts or references, and whose outputs a block sees, quantized or fp.
# LAUNCHER=local (default), parallel or slurm; further arguments go to the command line.
exec "$(dirname "$0")/experiment.sh" calib_teacher "$@"
