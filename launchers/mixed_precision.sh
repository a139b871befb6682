#!/usr/bin/env bash
# Bits chosen layer by layer under a budget, scales included, in bits per weight of the quantized linears.
# LAUNCHER=local (default), parallel or slurm; further arguments go to the command line.
exec "$(dirname "$0")/experiment.sh" mixed_precision "$@"
