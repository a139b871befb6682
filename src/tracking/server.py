"""Whether the Weights & Biases server can be used: asked before anything that would wait for it long or prompt."""

from __future__ import annotations

import os
import urllib.error
import urllib.request

from src.errors import UserError

_CONNECT_SECONDS = 10.0
_UNTIL_GIVEN_UP = {  # W&B's own limits add up to a quarter of an hour for one request
    "WANDB__GRAPHQL_RETRY_MAX": "4",
    "WANDB__GRAPHQL_RETRY_WAIT_MAX_SECONDS": "5",
    "WANDB__FILE_TRANSFER_RETRY_MAX": "4",
    "WANDB__FILE_STREAM_RETRY_MAX": "4",
    "WANDB_HTTP_TIMEOUT": "20",
}
_PRIVATE = {
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_PROGRAM": "src.tracking",  # else the path of the program, which lies in someone's home directory
}


def require_server() -> str:
    """The address of the server, which answers, and for which there is a key.

    From then on W&B's client in this process and those it starts gives up in time and sends no path; variables that the
    user has set stay as they are.

    Raises:
        UserError: no key, or no answer.
    """
    import wandb

    os.environ.update({**_UNTIL_GIVEN_UP, **_PRIVATE, **os.environ})
    url = str(wandb.setup(wandb.Settings(silent=True)).settings.base_url)
    if not wandb.login(prompt=False, verify=False):
        remedy = "Run `wandb login` once, or set WANDB_API_KEY; WANDB_BASE_URL chooses another server"
        raise UserError("WANDB_API_KEY", f"there is no API key for {url}", remedy)
    try:
        with urllib.request.urlopen(url, timeout=_CONNECT_SECONDS):
            pass
    except urllib.error.HTTPError:
        pass  # an answer
    except (OSError, ValueError) as error:
        problem = f"{url} does not answer ({getattr(error, 'reason', error)})"
        raise UserError("WANDB_BASE_URL", problem, "Check the network, proxy and address, and try again") from None
    return url
