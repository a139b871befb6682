#!/usr/bin/env bash
# Larger models at few bits against smaller ones at many, embedding and head included: WER at equal size on disk.
# LAUNCHER=local (default), parallel or slurm; further arguments go to the command line.
exec "$(dirname "$0")/experiment.sh" equal_footprint "$@"
