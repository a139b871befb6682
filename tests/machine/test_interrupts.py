"""Ctrl-C and the signals of terminals and schedulers: one line, what is done, the command that goes on, nobody left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

import pytest

from src.machine.interrupts import Ended, held
from src.project import ROOT
from tests import commands
from tests.launching.test_parallel import tasks

DEADLINE: Final = 120.0  # seconds; of waits that end when something happens


def script(text: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", text, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=commands.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("python", ["", "del atexit._run_exitfuncs"], ids=["as it is", "without its private name"])
def test_exit_functions_run_where_python_tells_how_and_the_process_ends_all_the_same(python: str) -> None:
    lines = ("import atexit", "from src.machine.interrupts import tell", "atexit.register(print, 'over')", python)
    process = script("\n".join((*lines, "tell(KeyboardInterrupt())")))
    said, told = process.communicate(timeout=DEADLINE)
    assert (process.returncode, told) == (130, "Error: interrupted\n")
    assert said == ("" if python else "over\n")


def test_an_interrupt_during_imports_is_one_line() -> None:
    process = script("import src, sys, time; print('on', flush=True); time.sleep(60)")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=DEADLINE)
    assert (process.returncode, told) == (130, "Error: interrupted\n")


def test_a_second_signal_ends_a_command_that_takes_its_time() -> None:
    process = script(
        "import time\nfrom src.machine.interrupts import obey_signals\nobey_signals()\n"
        "try:\n    print('on', flush=True); time.sleep(60)\nfinally:\n    print('ending', flush=True); time.sleep(60)"
    )
    assert process.stdout is not None
    for line in ("on\n", "ending\n"):
        assert process.stdout.readline() == line
        process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=DEADLINE)
    assert (process.returncode, told) == (130, "Error: interrupted again; left at once\n")


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_undo_the_work_and_end_a_command_as_themselves(ending: signal.Signals) -> None:
    process = script(
        "import time\nfrom src.machine.interrupts import obey_signals\nobey_signals()\n"
        "try:\n    print('on', flush=True); time.sleep(60)\nfinally:\n    print('undone', flush=True)"
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(ending)
    assert process.communicate(timeout=DEADLINE) == ("undone\n", "Error: interrupted\n")
    assert process.returncode == -ending


def test_a_signal_waits_for_the_end_of_what_it_must_not_disturb() -> None:
    done = list[str]()

    def work() -> None:
        with held():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            done.append("imported")
        done.append("never")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["imported"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def elsewhere() -> None:
        with held():
            done.append("in a thread")

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert done[-1] == "in a thread"
    assert isinstance(Ended(signal.SIGTERM), KeyboardInterrupt)


def lives(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_a_launcher_that_is_killed_takes_along_what_it_started() -> None:
    """Also a process that ignores what asks it to end; the grace is short here."""
    process = script(
        "import subprocess, sys, time\nfrom src.launching import watch\nfrom src.launching.pool import watched\n"
        "with watched(lambda: None) as watcher:\n"
        "    stubborn = 'trap \"\" TERM; sleep 300 & echo $$ $!; wait; sleep 300'\n"
        "    for command in (['sleep', '300'], ['sh', '-c', stubborn]):\n"
        "        one = subprocess.Popen(command, start_new_session=True, preexec_fn=watcher.begin)\n"
        "        print(f'{one.pid}\\n', end='', flush=True)\n"  # one write: the shell's line may come between two
        "    time.sleep(300)"
    )
    assert process.stdout is not None
    started = set[int]()
    while len(started) < 3 and (line := process.stdout.readline()):
        started |= set(map(int, line.split()))
    assert all(map(lives, started))
    process.kill()
    process.wait()
    deadline = time.monotonic() + DEADLINE
    while any(map(lives, started)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [each for each in started if lives(each)]


@pytest.mark.parametrize(
    ("launcher", "ending", "status"), [("local", signal.SIGINT, 130), ("parallel", signal.SIGTERM, -signal.SIGTERM)]
)
def test_a_sweep_ends_with_what_is_done_the_command_that_goes_on_and_no_process(
    launcher: str, ending: signal.Signals, status: int, tmp_path: Path
) -> None:
    chosen = ["-m", "method=rtn", "wbits=8,4,3,2", "stages=[quantize]", "tracking=none", f"output_dir={tmp_path}/out"]
    how = [f"hydra/launcher={launcher}", f"hydra.sweep.dir={tmp_path}/jobs", "++hydra.launcher.array_parallelism=1"]
    given = [*chosen, *how[: 3 if launcher == "parallel" else 2]]
    sweep = commands.start("src.main", *given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + DEADLINE
    while not list((tmp_path / "jobs").glob("1/main.log")) and time.monotonic() < deadline:  # the first is done
        time.sleep(0.02)
    sweep.send_signal(ending)
    told, _ = sweep.communicate(timeout=DEADLINE)
    assert sweep.returncode == status, told
    assert "Traceback" not in told
    *_, sentence, command = told.splitlines()
    assert "w8a16" in told
    # usually one; on a busy machine the second may have been done too
    done = r"(1 point of this sweep has|2 points of this sweep have) a record"
    assert re.fullmatch(rf"Error: interrupted; {done}\. To go on with the others:", sentence)
    assert command.split()[:4] == ["python", "-m", "src.main", "-m"]
    assert command.endswith(" sweep.only_missing=true")
    assert not tasks(tmp_path / "jobs")
    assert not list((tmp_path / "out/failures").rglob("*.json")), "an interrupt is no failure"
