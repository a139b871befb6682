#!/usr/bin/env bash
# How many calibration clips are enough: sizes and three draws of each, for methods that lean on them differently.
# LAUNCHER=local (default), parallel or slurm; further arguments go to the command line.
exec "$(dirname "$0")/experiment.sh" calib_size "$@"
