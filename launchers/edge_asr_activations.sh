#!/usr/bin/env bash
# Weight-activation grid after Edge-ASR (arXiv 2507.07877): five small models, the leaderboard's eight sets, every method.
# LAUNCHER=local (default), parallel or slurm; further arguments go to the command line.
exec "$(dirname "$0")/experiment.sh" edge_asr_activations "$@"
