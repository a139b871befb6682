#!/usr/bin/env bash
# All methods at five bit-configs on both embedded models and sets. LAUNCHER=local (default), submitit_local or slurm.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python -m src.main -m experiment=methods hydra/launcher="${LAUNCHER:-local}" "$@"
