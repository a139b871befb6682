"""Makes the project's page in Weights & Biases: ``python -m src.dashboard --entity TEAM``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from omegaconf import OmegaConf

from src.errors import UserError
from src.project import ROOT

_EXAMPLES = """examples:
  python -m src.dashboard --entity my-team                  saves the page and prints its address
  python -m src.dashboard --entity my-team --dry-run        prints what would be saved; no network, no key
  python -m src.dashboard --keys                            every figure and table of a run, as Markdown
"""


def main() -> None:
    """Command line; exits with 1 after a mistake that the user can mend."""
    arguments = _parser().parse_args()
    from src.terminal import console

    with console.plain_errors():
        print(_answer(arguments))


def _answer(arguments: argparse.Namespace) -> str:
    if arguments.keys:
        from src.tracking.keys import as_markdown

        return as_markdown().rstrip()
    if not arguments.entity:
        raise UserError("--entity", "no user or team is named", "Add --entity NAME, or set WANDB_ENTITY")
    from src.tracking.workspace import as_json, build_workspace

    workspace = build_workspace(arguments.entity, arguments.project, arguments.name)
    return json.dumps(as_json(workspace), indent=2) if arguments.dry_run else _saved(workspace)


def _saved(workspace: Any) -> str:
    """The address of the page, saved as a new view of the project. Raises UserError."""
    from src.tracking.server import require_server

    url = require_server()
    where = f"{workspace.entity}/{workspace.project}"
    try:
        workspace.save()
        return str(workspace.url)
    except Exception as error:  # of W&B's client, which has no common class
        problem = f"{url} refused the page of {where} ({type(error).__name__}: {error})"
        raise UserError("dashboard", problem, "Check that the project exists and that your key may write it") from error


def _parser() -> argparse.ArgumentParser:
    defaults: Any = OmegaConf.load(ROOT / "conf" / "tracking" / "wandb.yaml")
    parser = argparse.ArgumentParser(
        prog="python -m src.dashboard",
        description="A page of panels for the runs of a Weights & Biases project: WER against bits by method, against "
        "size, memory traffic and bit operations, error by layer, and the run table.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--entity", default=defaults["entity"], help="user or team (default: WANDB_ENTITY)")
    parser.add_argument("--project", default=defaults["project"], help="default: %(default)s")
    parser.add_argument("--name", default="Edge ASR", help="of the page (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print the page as JSON and save nothing")
    parser.add_argument("--keys", action="store_true", help="list every figure and table of a run and exit")
    return parser


if __name__ == "__main__":
    main()
