#!/usr/bin/env bash
# Word error rate against weight bits, round-to-nearest and GPTQ, per output channel, on both embedded models.
# LAUNCHER=local (default), parallel or slurm; further arguments go to the command line.
exec "$(dirname "$0")/experiment.sh" bits_curve "$@"
