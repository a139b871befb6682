#!/usr/bin/env bash
# WER against weight bits on both embedded models. LAUNCHER=local (default), submitit_local or slurm.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python -m src.main -m experiment=bits_curve hydra/launcher="${LAUNCHER:-local}" "$@"
