"""Runs an exported model: ``python -m src.transcribe speech.wav`` prints what is said, and how fast that was told."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from src.errors import UserError
from src.terminal import console

if TYPE_CHECKING:
    from src.data.audio import Waveform
    from src.runtimes.process import RuntimeProcess

_DESCRIPTION = """\
Transcribes sound files, or what is said into the microphone, with the files of export=onnx or export=ggml, as they run
on a device: in a process of its own, a clip at a time, long ones whole. Texts are printed; times and memory go to the
error stream.
"""
_EXAMPLES = """\
examples:
  python -m src.main export=onnx method=gptq bits=w4a16      a model to try; it ends with the folder
  python -m src.transcribe speech.wav talk.mp3               with the newest export below ./outputs
  python -m src.transcribe --model FOLDER --threads 1 speech.wav
  python -m src.transcribe --microphone
"""
_MIB = 2**20


def main() -> None:
    """Command line; exits with 1 after a mistake that the user can mend."""
    options = _parser().parse_args()
    if not options.files and not options.microphone:
        _parser().error("name a sound file, or add --microphone")
    with console.plain_errors():
        try:
            _run(options)
        except RuntimeError as error:
            *_, reason = str(error).splitlines()
            raise UserError("--model", f"it cannot be run ({reason})", "Export the point again") from None


def _run(options: argparse.Namespace) -> None:
    from src.runtimes.folder import file_bytes, require_installed, runtime_of
    from src.runtimes.job import RuntimeJob
    from src.runtimes.microphone import record, require_microphone
    from src.runtimes.process import RuntimeProcess
    from src.runtimes.sound_files import require_heard, waveform

    folder = options.model or _newest(options.output_dir)
    runtime = runtime_of(folder)
    require_installed(runtime, "--model")
    require_heard(options.files)
    microphone = require_microphone() if options.microphone else None
    job = RuntimeJob(runtime, str(folder.absolute()), options.threads, options.language)
    with RuntimeProcess(job) as process:
        loaded = process.loaded
        about = f"{runtime} {loaded.version}, {options.threads} threads, loaded in {loaded.load_ms / 1000:.2f} s"
        _say(f"{folder}: {about}, {file_bytes(folder) / _MIB:.1f} MiB of files")
        for file in options.files:
            _tell(process, waveform(file), str(file), named=len(options.files) > 1)
        while microphone is not None:
            _say("Speak, and press Enter; Ctrl-D ends.")
            try:
                _tell(process, record(microphone), "microphone", named=False)
            except EOFError:
                return


def _tell(process: RuntimeProcess, waveform: Waveform, name: str, *, named: bool) -> None:
    """Prints the text of one clip, and on the error stream its times."""
    heard, spoken = process.hear(waveform), len(waveform) / 16_000
    print(f"{name}: {heard.text}" if named else heard.text, flush=True)
    factor = f"real-time factor {heard.seconds / spoken:.3f}, " if spoken else ""
    form = f", {heard.long_form}" if heard.long_form else ""
    first = f"first token after {heard.first_token_ms / 1000:.2f} s"
    _say(f"{name}: {spoken:.1f} s in {heard.seconds:.2f} s{form}: {factor}{first}, peak {heard.peak_rss_mib:.0f} MiB")


def _newest(outputs: Path) -> Path:
    """The folder of the last export of a runtime that is known here. Raises UserError where there is none."""
    from src.runtimes.folder import runtime_of

    found = sorted((outputs / "cache" / "export").glob("*/model"), key=lambda folder: folder.stat().st_mtime)
    for folder in reversed(found):
        try:
            runtime_of(folder)
        except UserError:
            continue
        return folder
    remedy = "Name a folder with --model, or make one: python -m src.main export=onnx"
    raise UserError("--model", f"{outputs} holds no export of onnx or ggml", remedy)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m src.transcribe", None, _DESCRIPTION, _EXAMPLES, formatter_class=layout)
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="sound, in any format that libsndfile reads"
    )
    parser.add_argument("--microphone", action="store_true", help="what is said; pip install -e '.[microphone]'")
    newest = "that export=onnx or export=ggml ended with (default: the newest below the output_dir)"
    parser.add_argument("--model", type=Path, metavar="FOLDER", help=newest)
    outputs = "where to look for it (default: outputs)"
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"), metavar="DIR", help=outputs)
    threads = "of the runtime (default: the processors that may be used)"
    parser.add_argument("--threads", type=_positive, default=len(os.sched_getaffinity(0)), metavar="N", help=threads)
    language = "that a multilingual Whisper in a ggml file writes (default: en); ONNX graphs know theirs"
    parser.add_argument("--language", metavar="CODE", help=language)
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


if __name__ == "__main__":
    main()
