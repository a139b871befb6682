#!/usr/bin/env bash
# What to calibrate on: clips apart from the test set, clean ones, or others like those of the test set.
# LAUNCHER=local (default), parallel or slurm; further arguments go to the command line.
exec "$(dirname "$0")/experiment.sh" calib_source "$@"
