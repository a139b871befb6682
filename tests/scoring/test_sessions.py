"""Recordings cut into clips with one reference: heard clip by clip, scored as one, and never in parts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.data.transcripts import Transcript, save_transcripts
from src.errors import UserError
from src.project import ROOT
from src.scoring.comparison import scored
from src.scoring.sessions import joined
from src.stages.calibrate import Calibrate
from src.stages.evaluate import Evaluate
from src.stages.point import open_point
from src.text.normalizers import ENGLISH_RULES
from tests import commands
from tests.composed import composed
from tests.data.clips import tone

ROWS = pq.read_table(ROOT / "src/sandbox/data/clean/test-00000-of-00001.parquet").slice(0, 5).to_pylist()
SPOKEN = [row["text"] for row in ROWS]


def clip(name: str, said: str, session: str | None, position: int = 0, reference: str = "a b c d e f") -> Transcript:
    return Transcript(name, reference, said, 2.0, 3, False, None, session=session, position=position)


def test_clips_are_joined_in_their_order_and_scored_against_the_whole(tmp_path: Path) -> None:
    """Names sort otherwise than the clips follow each other; a clip in which nothing was heard leaves no trace."""
    parts = [
        clip("s-10", "e f", "s", 10),
        clip("s-2", "c d", "s", 2),
        clip("s-1", "a b", "s", 1),
        clip("s-3", "", "s", 3),
    ]
    alone = clip("s", "x", None, reference="x y")
    save_transcripts([*parts, alone], tmp_path / "transcripts.jsonl")
    found = scored(tmp_path / "transcripts.jsonl", ENGLISH_RULES)
    assert [(item.id, item.hypothesis) for item in found.transcripts] == [("s", "a b c d e f"), ("s", "x")]
    assert (found.scores.words, found.scores.deletions, found.scores.insertions) == (8, 1, 0)
    figures = found.figures(100, 0)
    assert (figures["utterances"], figures["audio_seconds"], figures["tokens"]) == (2, 10.0, 15)


def test_utterances_without_sessions_stay_as_they_are() -> None:
    alone = [clip("b", "x", None), clip("a", "y", None)]
    assert joined(alone) == alone


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of three and two clips; the rows of one lie between those of the other."""
    root: Path = tmp_path_factory.mktemp("calls")
    texts = {name: " ".join(SPOKEN[start::2]) for start, name in enumerate(("even", "odd"))}
    lines = []
    for number, row in enumerate(ROWS):
        session = ("even", "odd")[number % 2]
        name = f"{9 - number}.wav"  # named against their order
        (root / name).write_bytes(row["audio"]["bytes"])
        lines.append(json.dumps({"audio": name, "text": texts[session], "session": session}))
    (root / "manifest.jsonl").write_text("\n".join(lines))
    return root


def test_the_command_scores_recordings(calls: Path, tmp_path: Path) -> None:
    asked = ("dataset=local", f"dataset.root={calls}", "method=fp", "stages=[quantize,evaluate]", "tracking=offline")
    finished = commands.run("src.main", *asked, "evaluate.bootstrap_samples=100", f"output_dir={tmp_path}")
    assert finished.returncode == 0, finished.stderr
    assert "could not" not in finished.stderr
    (record,) = [json.loads(path.read_text()) for path in (tmp_path / "records").glob("*.json")]
    evaluated = record["results"]["evaluate"]
    assert (evaluated["utterances"], evaluated["data"]["utterances"]) == (2, 5)
    assert evaluated["words"] == sum(len(ENGLISH_RULES.normalize(text).split()) for text in SPOKEN)
    assert evaluated["wer"] < 20  # in another order most words would be wrong


def entries(*texts: str) -> str:
    return "\n".join(json.dumps({"audio": f"{n}.wav", "text": text, "session": "s"}) for n, text in enumerate(texts))


def spoil(folder: Path) -> None:
    (folder / "1.wav").write_bytes(b"nothing to hear")


@pytest.mark.parametrize(
    ("texts", "spoiled", "overrides", "message"),
    [
        (("a b", "a c"), None, (), "session 's' have different references"),
        (("a b", "a b"), None, ("dataset.limit=1",), r"dataset\.limit: a draw of clips leaves parts of sessions out"),
        (("a b", "a b"), spoil, ("on_bad_audio=skip",), r"on_bad_audio: on_bad_audio=skip left out 1\.wav"),
    ],
)
def test_what_would_score_parts_of_a_session_is_refused(
    tmp_path: Path,
    texts: tuple[str, ...],
    spoiled: Callable[[Path], None] | None,
    overrides: tuple[str, ...],
    message: str,
) -> None:
    for number in range(len(texts)):
        (tmp_path / f"{number}.wav").write_bytes(tone(0.3, 300 + 100 * number))
    (tmp_path / "manifest.jsonl").write_text(entries(*texts))
    if spoiled is not None:
        spoiled(tmp_path)
    asked = (
        "dataset=local",
        f"dataset.root={tmp_path}",
        f"output_dir={tmp_path / 'outputs'}",
        "method=rtn",
        *overrides,
    )
    with pytest.raises(UserError, match=message):
        Evaluate().check_data(open_point(composed(*asked)))


def recording(folder: Path, rows: list[dict[str, str]]) -> Path:
    for number, row in enumerate(rows):
        (folder / row["audio"]).write_bytes(tone(0.3, 300 + 50 * number))
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def check(folder: Path) -> None:
    asked = ("dataset=local", f"dataset.root={folder}", f"output_dir={folder / 'outputs'}", "method=fp")
    Evaluate().check_data(open_point(composed(*asked)))


@pytest.mark.parametrize("named", ["id", "audio"])
def test_clips_in_the_order_of_a_listing_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, named: str) -> None:
    def rows(order: list[int]) -> list[dict[str, str]]:
        numbered, other = {"id": ("call-{}", "audio"), "audio": ("chunk_{}.wav", "id")}[named]
        return [
            {named: numbered.format(number), other: f"{'zyxwvutsrqp'[row]}.wav", "text": "a b", "session": "s"}
            for row, number in enumerate(order)
        ]

    check(recording(tmp_path, rows(list(range(1, 12)))))
    assert "numbered otherwise" not in caplog.text
    (tmp_path / "listed").mkdir()
    check(recording(tmp_path / "listed", rows([1, 10, 11, 2, 3])))
    pair = {"id": "'call-11' comes before 'call-2'", "audio": "'chunk_11.wav' comes before 'chunk_2.wav'"}[named]
    assert f"those of 's' are numbered otherwise: {pair}" in caplog.text


def test_names_beside_the_sound_tell_the_order_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        {"audio": {"bytes": tone(0.3, 300 + 50 * number), "path": f"chunk{number}.wav"}, "text": "a b", "session": "s"}
        for number in (1, 10, 2)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    check(tmp_path)
    assert "'chunk10.wav' comes before 'chunk2.wav'" in caplog.text


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            {"id": "b", "text": "", "session": "s"},
            r"line 2: a clip of session 's' has no reference, but others of it do",
        ),
        ({"id": "s", "text": "x"}, r"a session and a clip of no session are both called 's'"),
    ],
)
def test_clips_that_would_be_taken_for_a_session_or_out_of_it_are_refused(
    tmp_path: Path, second: dict[str, str], message: str
) -> None:
    first = {"audio": "a.wav", "id": "a", "text": "a b", "session": "s"}
    with pytest.raises(UserError, match=message):
        check(recording(tmp_path, [first, {"audio": "b.wav", **second}]))


def test_a_reference_of_the_whole_is_not_fed_to_a_clip_of_it(calls: Path, tmp_path: Path) -> None:
    own = ("dataset@calib.dataset=local", f"calib.dataset.root={calls}", f"output_dir={tmp_path}", "method=gptq")
    Calibrate().check_data(open_point(composed(*own)))
    with pytest.raises(UserError, match=r"calib\.decoder_inputs: clips of local share the reference of their session"):
        Calibrate().check_data(open_point(composed(*own, "calib.decoder_inputs=reference")))
