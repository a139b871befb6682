"""Columns that hold no text or no audio: one rule in every form, which reads what is meant or names row and column."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from src.data.cells import LONGEST_TEXT
from src.data.rows import unique
from src.data.selection import Selection
from src.data.sources import dataset_identity
from src.errors import UserError
from tests.data.clips import tone
from tests.data.sets import dataset, local
from tests.utterances import load_utterances

SOUND = tone(0.1, 440)
ROW = {"audio": "a.wav", "text": "one two"}


def json_lines(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return folder


def saved(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """With the file that rows may name, as paths are relative to the saved set."""
    datasets.Dataset.from_list(rows).save_to_disk(folder / "saved")
    (folder / "saved" / "a.wav").write_bytes(SOUND)
    return folder / "saved"


FORMS = {"json": json_lines, "parquet": parquet, "saved": saved}
Write = Callable[[Path, list[dict[str, Any]]], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.wav").write_bytes(SOUND)
    (tmp_path / "b.wav").write_bytes(tone(0.2, 330))
    return tmp_path


def load(root: Path, **changes: Any) -> list[tuple[str, str, str | None]]:
    return [(each.id, each.text, each.speaker) for each in load_utterances(local(root, **changes), seed=0)]


NO_TEXT = {
    "list": (["x"], "(text is .'x'., which is no text|column text: it holds .*, which is no text)"),
    "number": (7, r"text is 7, which is no text\. Write what is spoken"),
    "truth": (True, "text is True, which is no text"),
    "nan": ("nan", "text is 'nan', which programs write for a missing value"),
    "R": ("NA", "text is 'NA', which programs write for a missing value"),
    "nul": ("a\0b", r"text is 'a\\x00b', which holds a NUL character"),
    "huge": ("a " * LONGEST_TEXT, f"text has {2 * LONGEST_TEXT:,} characters, more than {LONGEST_TEXT:,}"),
}


@pytest.mark.parametrize("kind", NO_TEXT)
@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_text_is_refused_in_every_form(folder: Path, form: str, kind: str) -> None:
    value, message = NO_TEXT[kind]
    of_one_type = [{**ROW, "text": value}] if form != "json" else [ROW, {**ROW, "text": value}]
    root = FORMS[form](folder, of_one_type)
    where = {"json": "m.jsonl, line 2", "parquet": r"rows.parquet, (row 0)?", "saved": "saved, (row 0)?"}[form]
    with pytest.raises(UserError, match=rf"^dataset: .*{where}:? ?{message}") as caught:
        load(root)
    assert len(str(caught.value)) < 500


ONLY_JSON = {
    "NaN": r"line 2: text is nan, which is no text",
    '"half \\ud83d"': r"line 2: text is 'half \\ud83d', which is not valid Unicode \(half a surrogate",
    '{"en": "x"}': r"line 2: text is \{'en': 'x'\}, which is no text",
    "1e21": r"line 2: text is 1e\+21, which is no text",
}


@pytest.mark.parametrize("value", ONLY_JSON)
def test_what_json_alone_can_hold_is_refused(folder: Path, value: str) -> None:
    (folder / "m.jsonl").write_text(json.dumps(ROW) + '\n{"audio": "b.wav", "text": ' + value + "}")
    with pytest.raises(UserError, match=ONLY_JSON[value]):
        load(folder)


def test_bytes_are_text_where_they_are_utf8(folder: Path) -> None:
    assert load(parquet(folder, [{**ROW, "text": "naïve".encode()}])) == [("a.wav", "naïve", None)]
    damaged = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"a\xff"))
    pq.write_table(pa.table({"audio": ["a.wav"], "text": damaged}), folder / "rows.parquet")
    with pytest.raises(UserError, match=r"rows\.parquet, row 0: text is b'a\\xff', which is not UTF-8"):
        load(folder)


@pytest.mark.parametrize("form", FORMS)
def test_names_may_be_numbers_and_missing(folder: Path, form: str) -> None:
    """As pandas leaves them: a column of numbers with a gap is one of floats, and a gap made text is "nan"."""
    rows = [{**ROW, "id": 7, "speaker": 3.0, "session": "nan"}, {**ROW, "id": 8, "speaker": float("nan")}]
    root = FORMS[form](folder, [{"session": None, **row} for row in rows])
    found = load_utterances(local(root), seed=0)
    assert [(each.id, each.speaker, each.session) for each in found] == [("7", "3", None), ("8", None, None)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "m.jsonl, line 2: it has no 'id'"),
        (" ", "m.jsonl, line 2: it has no 'id'"),
        (True, "line 2: id is True, which is no text"),
        ("caf\udce9", r"line 2: id is 'caf\\udce9', which is not valid Unicode"),
        ("\x1b[2J", r"line 2: id is '\\x1b\[2J', which holds the control character"),
        ("x" * 5_000, "line 2: id has 5,000 characters, more than 4,096"),
    ],
)
def test_what_is_no_id_is_refused(folder: Path, name: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(json_lines(folder, [{**ROW, "id": "a"}, {**ROW, "id": name}]))


def test_odd_ids_stay_as_they_are(folder: Path) -> None:
    odd = sorted(["spk/1/utt 1", "../../x", "x" * 400, "line\nbreak | pipe", "</script><b>é</b>", "=cmd()", "e\u0301"])
    assert [name for name, _, _ in load(json_lines(folder, [{**ROW, "id": name} for name in odd]))] == odd


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a", "a#2", "a", "b"], ["a", "a#2", "a#3", "b"]),
        (["a", "a", "a#2", "a"], ["a", "a#3", "a#2", "a#4"]),
        (["a#2", "a#2", "a", "a"], ["a#2", "a#2#2", "a", "a#3"]),
    ],
)
def test_ids_that_are_told_apart_do_not_collide(given: list[str], expected: list[str]) -> None:
    assert unique(given) == expected


def as_array(folder: Path) -> dict[str, Any]:
    samples, rate = soundfile.read(folder / "a.wav")
    return {"array": samples.tolist(), "sampling_rate": rate}


AUDIO: dict[str, Callable[[Path], Any]] = {
    "path": lambda _: "a.wav",
    "absolute": lambda folder: str(folder / "a.wav"),
    "bytes and path": lambda _: {"bytes": SOUND, "path": "gone.wav"},
    "path alone": lambda _: {"bytes": None, "path": "a.wav"},
    "bytes": lambda _: SOUND,
    "array": as_array,
}


@pytest.mark.parametrize(
    ("form", "kind"),
    [(form, kind) for form in FORMS for kind in AUDIO if form != "json" or not kind.startswith("bytes")],
)
def test_audio_in_any_column_is_the_same_sound(folder: Path, form: str, kind: str) -> None:
    value = AUDIO[kind](folder)
    settings = local(FORMS[form](folder, [{"audio": value, "text": "one"}] * 2))
    first, second = load_utterances(settings, seed=0)
    (folder / "reference").mkdir()
    (folder / "reference" / "a.wav").write_bytes(SOUND)
    (expected,) = load_utterances(local(json_lines(folder / "reference", [ROW])), seed=0)
    np.testing.assert_array_equal(first.waveform(), expected.waveform())
    np.testing.assert_array_equal(second.waveform(), expected.waveform())
    files = "audio" in Selection(settings, None, 0).key  # sound beside the table is part of what identifies it
    assert files == (kind in ("path", "path alone", "absolute"))


PATHS = {
    "backslashes": ".\\sub\\c.wav",
    "file URL": "file://{folder}/sp%20ace.wav",
    "escaped": "sp%20ace.wav",
    "percent": "100%25.wav",
    "spaces": "sp ace.wav",
    "blank behind": "a.wav ",
    "tilde": "~draft.wav",
    "dots": "sub/../a.wav",
    "link": "link.wav",
    "from the working directory": "here/d.wav",
}


@pytest.mark.parametrize("kind", PATHS)
def test_paths_in_any_layout_are_followed(folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    (folder / "sub").mkdir()
    (folder / "elsewhere" / "here").mkdir(parents=True)
    for name in ("sub/c.wav", "sp ace.wav", "100%25.wav", "~draft.wav", "elsewhere/here/d.wav"):
        (folder / name).write_bytes(SOUND)
    (folder / "link.wav").symlink_to("a.wav")
    monkeypatch.chdir(folder / "elsewhere")
    (found,) = load_utterances(local(json_lines(folder, [{**ROW, "audio": PATHS[kind].format(folder=folder)}])), 0)
    assert found.encoded() == SOUND


NO_AUDIO = {
    "number": (3, "audio is 3, which is no audio"),
    "rate lost": ([0.1, 0.2], "audio is a list of 2 samples without their rate"),
    "integers": ({"array": [1, 2], "sampling_rate": 8_000}, r"audio has the array \[1, 2\], which is no mono waveform"),
    "channels": ({"array": [[0.1], [0.2]], "sampling_rate": 8_000}, "which is no mono waveform"),
    "no rate": ({"array": [0.1, 0.2], "sampling_rate": None}, "audio has sampling_rate None, which is no rate"),
    "other": ({"src": "a.wav"}, "audio holds 'src', but no bytes, path or array"),
    "gone": ({"bytes": None, "path": "gone.wav"}, "audio is 'gone.wav', and there is no such file in"),
    "folder": (".", r"audio is '\.', which is a folder"),
    "URL": ("https://x.org/a.wav", "audio is 'https://x.org/a.wav', which is no file on this machine"),
    "no user": ("~nosuchuser/a.wav", "audio is '~nosuchuser/a.wav', and there is no such file"),
    "too long": ("a" * 300, "and there is no such file"),
    "device": ("/dev/zero", "audio is '/dev/zero', and there is no such file"),
    "Windows": ("C:\\a.wav", r"audio is 'C:\\\\a.wav', and there is no such file"),
}


@pytest.mark.parametrize("kind", NO_AUDIO)
@pytest.mark.parametrize("form", ["json", "parquet"])
def test_what_is_no_audio_is_refused(folder: Path, form: str, kind: str) -> None:
    value, message = NO_AUDIO[kind]
    where = {"json": "m.jsonl, line 1", "parquet": "rows.parquet, row 0"}[form]
    with pytest.raises(UserError, match=rf"^dataset: .*{where}: .*{message}"):
        load(FORMS[form](folder, [{**ROW, "audio": value}]))


def test_several_files_that_are_gone_are_counted(folder: Path) -> None:
    rows = [ROW, *({**ROW, "audio": f"{name}.wav"} for name in "xyz")]
    with pytest.raises(UserError, match=r"line 2: audio is 'x\.wav', and .*\(and 2 more rows are wrong\)"):
        load(json_lines(folder, rows))


def test_what_the_datasets_library_knows_of_a_column_counts(folder: Path) -> None:
    """Names of classes, not their numbers; a format is not data; a table with paths is read through them."""
    rows = {"audio": [str(folder / "a.wav"), str(folder / "b.wav"), str(folder / "a.wav")], "text": [1, 0, -1]}
    table = datasets.Dataset.from_dict({**rows, "id": ["p", "q", "none"]})
    table = table.cast_column("audio", datasets.Audio()).cast_column("text", datasets.ClassLabel(names=["yes", "no"]))
    table.to_parquet(folder / "rows.parquet")
    assert pq.read_table(folder / "rows.parquet")["audio"][0]["bytes"].as_py() is None
    table.save_to_disk(folder / "plain")
    table.set_format("numpy", columns=["text"])
    table.save_to_disk(folder / "formatted")
    expected = [("p", "no", None), ("q", "yes", None)]
    assert load(folder / "rows.parquet") == load(folder / "plain") == load(folder / "formatted") == expected
    assert dataset_identity(local(folder / "plain")) == dataset_identity(local(folder / "formatted"))
    before = dataset_identity(local(folder / "plain"))
    (folder / "plain" / "cache-1234.arrow").write_bytes(b"left by a map over the set")
    assert dataset_identity(local(folder / "plain")) == before


def test_a_published_set_holds_its_sound(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its paths are those of who made it, and its words are nobody's here to mend."""
    (folder / "own").mkdir()
    file = folder / "own" / "test-0.parquet"
    held = {"id": "a", "text": "None", "audio": {"bytes": SOUND, "path": "gone.wav"}}
    pq.write_table(pa.Table.from_pylist([held]), file)
    assert load_utterances(dataset(folder), seed=0)[0].text == "None"
    assert "own: 1 references are words that programs write for none" in caplog.text
    for path, message in (("a.wav", r"'a' \(missing: "), (str(folder / "a.wav"), "names files such as .*=local")):
        pq.write_table(pa.Table.from_pylist([{**held, "audio": {"bytes": None, "path": path}}]), file)
        with pytest.raises(UserError, match=message):
            load_utterances(dataset(folder), seed=0)


DIALECTS = {
    "semicolons": 'audio;text;id\na.wav;"one, two; ""three""";x\n',
    "tabs": 'audio\ttext\tid\na.wav\tone, two; "three"\tx\n',
    "quoted between tabs": '"audio"\t"text"\t"id"\n"a.wav"\t"one, two; ""three"""\tx\n',
    "bars": 'audio|text|id\na.wav|one, two; "three"|x\n'.replace('one, two; "three"', '"one, two; ""three"""'),
    "blanks": 'audio, text, id\n\na.wav, "one, two; ""three""", x\n,,\n',
    "mark and CRLF": '\ufeffaudio,text,id\r\na.wav,"one, two; ""three""",x\r\n',
    "UTF-16": 'audio\ttext\tid\na.wav\tone, two; "three"\tx\n',
    "carriage returns": 'audio,text,id\ra.wav,"one, two; ""three""",x\r',
}


@pytest.mark.parametrize("kind", DIALECTS)
def test_tables_as_programs_write_them_are_read(folder: Path, kind: str) -> None:
    (folder / "m.csv").write_bytes(DIALECTS[kind].encode("utf-16" if kind == "UTF-16" else "utf-8"))
    assert load(folder) == [("x", 'one, two; "three"', None)]


def test_a_quotation_mark_between_tabs_swallows_no_row(folder: Path) -> None:
    (folder / "m.tsv").write_text('audio\ttext\na.wav\t"Open\nb.wav\tclose"\n')
    assert load(folder) == [("a.wav", '"Open', None), ("b.wav", 'close"', None)]


def test_an_open_quotation_mark_swallows_no_row(folder: Path) -> None:
    (folder / "m.csv").write_text('audio,text\na.wav,"Open\nb.wav,close"\n')
    with pytest.raises(UserError, match=r"m\.csv, line 3: a quotation mark is closed lines after it was opened"):
        load(folder)


def test_a_long_field_and_a_json_list_are_read(folder: Path) -> None:
    long = "word " * 40_000
    (folder / "m.csv").write_text(f"audio,text\na.wav,{long}\n")
    assert load(folder)[0][1] == long
    (folder / "m.csv").unlink()
    (folder / "m.jsonl").write_text(json.dumps([ROW, {**ROW, "audio": "b.wav"}], indent=1))
    assert [name for name, _, _ in load(folder)] == ["a.wav", "b.wav"]


@pytest.mark.parametrize("root", ["~nosuchuser/data", "x" * 5_000, "a\0b"])
def test_a_root_that_can_be_no_path_is_refused(root: str) -> None:
    with pytest.raises(UserError, match=r"^dataset\.root: there is no folder"):
        load_utterances(local(root), seed=0)
