#!/usr/bin/env bash
# Runs an experiment: ./launchers/experiment.sh NAME [key=value ...]; LAUNCHER=local (default), parallel or slurm.
set -euo pipefail
cd "$(dirname "$0")/.."
source launchers/preamble.sh
name="$1"
shift
exec python -m src.main -m experiment="$name" hydra/launcher="${LAUNCHER:-local}" "$@"
