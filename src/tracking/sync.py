"""Uploads offline runs that have not been uploaded yet: ``python -m src.tracking.sync outputs``.

``wandb sync`` does the work; it returns 0 whatever happened, so the mark that it leaves beside an uploaded run decides.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from src.errors import UserError
from src.tracking.server import require_server

_DONE = ".wandb.synced"  # W&B's own mark


def main() -> None:
    """Command line; exits with 1 where a run could not be uploaded."""
    arguments = _parser().parse_args()
    from src.terminal import console

    with console.plain_errors():
        failed = sync(arguments.outputs, dry_run=arguments.dry_run)
    sys.exit(1 if failed else 0)


def sync(outputs: Path, *, dry_run: bool) -> list[Path]:
    """Uploads, and says what was done; returns the runs that could not be uploaded.

    Raises:
        UserError: there is no offline run, no key, or no server.
    """
    logs = sorted((outputs / "wandb").glob("offline-run-*/*.wandb"))
    if not logs:
        problem = f"{outputs / 'wandb'} holds no offline run"
        raise UserError("outputs", problem, "Name the output_dir of points that ran with tracking=offline")
    due = [log for log in logs if not _is_done(log)]
    print(f"{len(due)} of {len(logs)} offline runs in {outputs / 'wandb'} are not uploaded")
    if dry_run:
        for log in due:
            print(f"  would upload {log.parent.name}")
        return []
    if not due:
        return []
    url = require_server()
    _upload(due, outputs)
    failed = [log.parent for log in due if not _is_done(log)]
    print(f"{len(due) - len(failed)} uploaded to {url}, {len(failed)} failed")
    for run in failed:
        print(f"  not uploaded: {run.name} (see above; run the same command again)")
    return failed


def _is_done(log: Path) -> bool:
    return log.with_suffix(_DONE).exists()


def _upload(logs: list[Path], outputs: Path) -> None:
    """One call for all: runs of one id are then uploaded one after the other, oldest first."""
    environment = {**os.environ, "WANDB_DIR": str(outputs.resolve())}  # where its log goes
    command = [sys.executable, "-m", "wandb", "sync", *(str(log.parent.resolve()) for log in logs)]
    sys.stdout.flush()
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.tracking.sync",
        description="Uploads the offline Weights & Biases runs that have not been uploaded yet. "
        "WANDB_API_KEY and WANDB_BASE_URL are obeyed.",
    )
    parser.add_argument("outputs", type=Path, nargs="?", default=Path("outputs"), help="output_dir (default: outputs)")
    parser.add_argument("--dry-run", action="store_true", help="list them and upload nothing")
    return parser


if __name__ == "__main__":
    main()
