#!/usr/bin/env bash
# Every method over the bit-configs of the field, one scale per output channel, on both embedded models and test sets.
# LAUNCHER=local (default), parallel or slurm; further arguments go to the command line.
exec "$(dirname "$0")/experiment.sh" methods "$@"
