#!/usr/bin/env bash
# Which part is sensitive: one component at a time at few bits, the others at 16, and all together, round-to-nearest.
# LAUNCHER=local (default), parallel or slurm; further arguments go to the command line.
exec "$(dirname "$0")/experiment.sh" sensitivity "$@"
