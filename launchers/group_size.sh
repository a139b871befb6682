#!/usr/bin/env bash
# Columns that share a scale: smaller groups are more accurate and larger on disk. All divide the embedded models' widths.
# LAUNCHER=local (default), parallel or slurm; further arguments go to the command line.
exec "$(dirname "$0")/experiment.sh" group_size "$@"
