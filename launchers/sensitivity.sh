#!/usr/bin/env bash
# WER with one component at a time quantized. LAUNCHER=local (default), submitit_local or slurm.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python -m src.main -m experiment=sensitivity hydra/launcher="${LAUNCHER:-local}" "$@"
