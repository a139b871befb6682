"""Points in a process of their own: what the run's files disclose, and what happens without key or network."""

from __future__ import annotations

import os
import pty
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from commands import environment
from wandb_reader import read_runs
from wandb_server import API_KEY, Wandb, wandb_server

from src.project import ROOT

HUB_TOKEN = "hf_" + "fAkEtOkEn" * 3

POINT = """
import logging, sys
from pathlib import Path
from src.settings import TrackingSettings
from src.tracking import RunInfo, connection, open_tracker
mode, directory = sys.argv[1:3]
logging.basicConfig(level=logging.WARNING)
connection.PRIVATE.update(init_timeout=float(sys.argv[3]), finish_timeout=float(sys.argv[4]))
settings = TrackingSettings(mode=mode, project="tests", entity=None, group=None)
home = Path.home()
config = {"cache": str(home / "models"), "command": " ".join(sys.argv), "api_key": "from-the-command-line"}
info = RunInfo("point", "name", "group", "ptq", (), config, Path(directory))
tracker = open_tracker(settings, info)
assert "wandb" not in sys.modules
with tracker:
    tracker.log("evaluate", {"wer": 7})
    tracker.table("evaluate", "probe", ["a"], [[1]])
    if "lose-the-network" in sys.argv:
        print("begun", flush=True)
        sys.stdin.readline()
        tracker.log("profile", {"tokens": 5})
"""


def run_point(mode: str, directory: Path, environment: Mapping[str, str], *arguments: str) -> str:
    """Runs one point in a process with a home directory of its own on a terminal; returns what it printed."""
    home = directory.parent / "home-of-the-user"
    home.mkdir()
    clean = {name: value for name, value in os.environ.items() if not re.search("proxy|wandb", name, re.I)}
    command = [sys.executable, "-c", POINT, mode, str(directory), "2", "60", *arguments]
    with terminal() as (screen, printed):
        subprocess.run(
            command,
            cwd=ROOT,
            env={**clean, "HOME": str(home), **environment},
            stdin=screen,
            stdout=screen,
            stderr=screen,
            timeout=180,  # beyond every limit that the tracker sets W&B
            check=True,
        )
    return b"".join(printed).decode()


@contextmanager
def terminal() -> Iterator[tuple[int, list[bytes]]]:
    """A terminal, and what is printed on it: read all the time, or a program that prints much would wait for ever."""
    master, screen = pty.openpty()
    printed: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # the terminal was closed
            while chunk := os.read(master, 65536):
                printed.append(chunk)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield screen, printed
    finally:
        os.close(screen)
        reader.join(timeout=10)  # a service left behind may hold the terminal open
        os.close(master)


def test_no_secret_home_host_or_command_line_is_stored(tmp_path: Path) -> None:
    directory = tmp_path / "output"
    secrets = {"WANDB_API_KEY": API_KEY, "HF_TOKEN": HUB_TOKEN}
    run_point("offline", directory, secrets, f"--key={API_KEY}", f"--hub={HUB_TOKEN}", "unrelated-argument")
    (read,) = read_runs(directory)
    assert read.logged("evaluate/wer") == [7]
    assert read.config["cache"] == "~/models"
    assert read.host == ""
    assert not read.kinds & {"environment", "stats", "output", "output_raw"}
    stored = b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())
    for secret in (API_KEY, HUB_TOKEN, "from-the-command-line", "home-of-the-user"):
        assert secret.encode() not in stored
    if len(socket.gethostname()) > 5:  # shorter names occur by chance
        assert socket.gethostname().encode() not in stored


def test_online_without_a_key_neither_prompts_nor_waits(tmp_path: Path) -> None:
    began = time.monotonic()
    printed = run_point("online", tmp_path / "output", {})
    assert time.monotonic() - began < 20
    assert "no API key" in printed
    assert "wandb login" in printed
    (read,) = read_runs(tmp_path / "output")
    assert read.logged("evaluate/wer") == [7]


def test_online_without_a_network_keeps_the_run_offline(tmp_path: Path) -> None:
    nowhere = {"WANDB_API_KEY": API_KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    printed = run_point("online", tmp_path / "output", nowhere)
    assert printed.count("WARNING") == 1
    assert "sync_wandb.sh" in printed
    assert API_KEY not in printed
    (read,) = read_runs(tmp_path / "output")
    assert read.logged("evaluate/wer") == [7]


def online(server: Wandb, directory: Path, finish_timeout: float, *arguments: str) -> subprocess.Popen[str]:
    """Starts a point that logs to ``server``."""
    return subprocess.Popen(
        [sys.executable, "-c", POINT, "online", str(directory), "60", str(finish_timeout), *arguments],
        cwd=ROOT,
        env=environment(**server.environment, HOME=str(directory.parent)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_an_online_run_sends_figures_and_nothing_of_the_machine(tmp_path: Path) -> None:
    with wandb_server() as server:
        printed, _ = online(server, tmp_path / "output", 60).communicate(timeout=180)
    assert "WARNING" not in printed
    begun = server.of("UpsertBucket")[0]
    assert (begun["name"], begun["displayName"], begun["groupName"]) == ("point", "name", "group")
    assert (begun["jobType"], begun["program"], begun["host"]) == ("ptq", "src.main", None)
    sent = b"".join(server.bodies)
    assert b"evaluate/wer" in sent
    hidden = [str(ROOT), sys.prefix, str(tmp_path), "from-the-command-line", API_KEY]
    assert not [name for name in hidden if name.encode() in sent]


def test_a_network_that_is_lost_on_the_way_costs_a_warning(tmp_path: Path) -> None:
    with wandb_server() as server:
        point = online(server, tmp_path / "output", 2, "lose-the-network")
        assert point.stdout is not None
        assert point.stdout.readline() == "begun\n"
    printed, _ = point.communicate("\n", timeout=180)
    assert point.returncode == 0
    assert "failed at finishing the run" in printed
    assert "wandb sync --include-online" in printed
