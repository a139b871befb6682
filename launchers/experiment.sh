#!/usr/bin/env bash
# Runs an experiment of conf/experiment/: ./launchers/experiment.sh NAME [key=value ...]
# LAUNCHER=local (default), parallel or slurm; further arguments go to the command line.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -f "conf/experiment/${1:-}.yaml" ]; then
  echo "usage: $0 NAME [key=value ...]" >&2
  echo "NAME is one of: $(basename -as .yaml conf/experiment/*.yaml | paste -sd ' ')" >&2
  exit 2
fi
source launchers/preamble.sh
name="$1"
shift
exec python -m src.main -m experiment="$name" hydra/launcher="${LAUNCHER:-local}" "$@"
