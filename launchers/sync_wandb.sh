#!/usr/bin/env bash
# Uploads the offline Weights & Biases runs below outputs, or the folder named, that are not uploaded yet.
# --dry-run lists them. Exit code 1 where one could not be uploaded.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python -m src.tracking.sync "$@"
