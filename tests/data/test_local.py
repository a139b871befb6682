"""A user's own data: every form gives the same utterances, and every mistake names its line and its remedy."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.data.selection import Selection
from src.data.sources import dataset_identity
from src.errors import UserError
from tests.data.clips import tone
from tests.data.sets import dataset, local
from tests.utterances import load_utterances

TEXTS = {"b": 'two, "three" or\nfour', "a": "naïve\u2028 one", "c": "five"}
SOUNDS = {name: tone(0.1 + 0.05 * number, 300 + 100 * number) for number, name in enumerate(TEXTS)}
ENTRIES = [
    {"id": name, "audio": f"wavs/{name}.wav", "text": text, "speaker": f"s{len(text) % 2}"}
    for name, text in TEXTS.items()
]


def sounds(folder: Path) -> Path:
    """The folder with its audio files."""
    (folder / "wavs").mkdir(parents=True)
    for name, sound in SOUNDS.items():
        (folder / "wavs" / f"{name}.wav").write_bytes(sound)
    return folder


def json_lines(folder: Path, entries: list[dict[str, Any]] = ENTRIES) -> Path:
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, entries)) + "\n\n")
    return folder


def comma_separated(folder: Path) -> Path:
    with (folder / "manifest.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(ENTRIES[0]))
        writer.writeheader()
        writer.writerows(ENTRIES)
    return folder


def paths_in_parquet(folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ENTRIES), folder / "clips.parquet")
    return folder


def held() -> list[dict[str, Any]]:
    return [{**entry, "audio": {"bytes": SOUNDS[entry["id"]], "path": None}} for entry in ENTRIES]


def bytes_in_parquet(folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(held()[:2]), folder / "clips-0.parquet")
    pq.write_table(pa.Table.from_pylist(held()[2:]), folder / "clips-1.parquet")
    return folder


def plain_bytes_in_parquet(folder: Path) -> Path:
    rows = [{**entry, "audio": SOUNDS[entry["id"]]} for entry in ENTRIES]
    pq.write_table(pa.Table.from_pylist(rows), folder / "clips.parquet")
    return folder


def hub_layout(folder: Path) -> Path:
    (folder / "own").mkdir()
    pq.write_table(pa.Table.from_pylist(held()), folder / "own" / "test-00000-of-00001.parquet")
    return folder


def saved(folder: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({name: datasets.Value("string") for name in ("id", "text", "speaker")})
    pq.write_table(pa.Table.from_pylist(held()), folder / "rows.pq")
    table = datasets.Dataset.from_parquet(
        str(folder / "rows.pq"),
        features=datasets.Features({**features, "audio": datasets.Audio(decode=True)}),
        cache_dir=str(folder / "cache"),
    )
    table.save_to_disk(folder / "saved")
    return folder / "saved"


FORMS = [json_lines, comma_separated, paths_in_parquet, bytes_in_parquet, plain_bytes_in_parquet, hub_layout, saved]


@pytest.mark.parametrize("make", FORMS)
def test_every_form_gives_the_same_utterances(tmp_path: Path, make: Any) -> None:
    root = make(sounds(tmp_path))
    layout = {"config": "own", "split": "test"} if make is hub_layout else {}
    utterances = load_utterances(local(root, **layout), seed=0)
    assert [(u.id, u.text, u.speaker) for u in utterances] == [
        (name, TEXTS[name], f"s{len(TEXTS[name]) % 2}") for name in "abc"
    ]
    assert [u.encoded() for u in utterances] == [SOUNDS[name] for name in "abc"]
    assert [len(u.waveform()) for u in utterances] == [u.samples for u in utterances]


def test_the_manifest_itself_may_be_named_and_columns_called_otherwise(tmp_path: Path) -> None:
    renamed = [{"path": entry["audio"], "sentence": entry["text"]} for entry in ENTRIES]
    (sounds(tmp_path) / "mine.jsonl").write_text("\n".join(map(json.dumps, renamed)))
    (tmp_path / "other.csv").write_text("audio,text\n")
    found = load_utterances(
        local(tmp_path / "mine.jsonl", columns={"audio": "path", "text": "sentence", "id": None}), seed=0
    )
    assert [(u.id, u.text, u.speaker) for u in found] == [(f"wavs/{name}.wav", TEXTS[name], None) for name in "abc"]


def test_a_saved_split_is_chosen_by_name(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    split = datasets.load_from_disk(str(saved(tmp_path)))
    datasets.DatasetDict({"dev": split.select([0]), "test": split}).save_to_disk(tmp_path / "splits")
    assert len(load_utterances(local(tmp_path / "splits", split="dev"), seed=0)) == 1
    with pytest.raises(UserError, match=r"dataset\.split: .* has several splits\. Available: dev, test"):
        load_utterances(local(tmp_path / "splits"), seed=0)


def test_limit_seed_and_pattern_work_as_on_any_set(tmp_path: Path) -> None:
    folder = json_lines(sounds(tmp_path), [{**entry, "id": f"{entry['id']}-1"} for entry in ENTRIES])
    settings = local(folder, limit=2, columns={"speaker": None}, speaker_pattern="([a-c])-")
    drawn = load_utterances(settings, seed=3)
    assert [(u.id, u.speaker) for u in drawn] == [(f"{u.id[0]}-1", u.id[0]) for u in drawn]
    assert len(drawn) == 2


def key(settings: Any) -> dict[str, Any]:
    return Selection(settings, settings.limit, 0).key


def test_identity_follows_text_and_sound_and_not_the_place(tmp_path: Path) -> None:
    here, there = (local(json_lines(sounds(tmp_path / name))) for name in ("here", "there"))
    assert key(here) == key(there)
    assert dataset_identity(here) == dataset_identity(there)
    file = tmp_path / "there" / "wavs" / "a.wav"
    file.write_bytes(file.read_bytes()[:-2] + b"\1\1")
    assert key(here) != key(there)
    assert dataset_identity(here) == dataset_identity(there)


def test_only_the_sound_of_drawn_clips_is_read(tmp_path: Path) -> None:
    settings = local(json_lines(sounds(tmp_path)), limit=1)
    (drawn,) = load_utterances(settings, seed=0)
    before = key(settings)
    for name in TEXTS:
        if name != drawn.id:
            (tmp_path / "wavs" / f"{name}.wav").write_bytes(b"damaged, but nobody looks")
    assert [u.id for u in load_utterances(settings, seed=0)] == [drawn.id]
    assert key(settings) == before


LINE = '{"audio": "wavs/a.wav", "text": "one"}\n'
MISTAKES = [
    ("manifest.jsonl", LINE + '{"audio": "wavs/a.wav", "txt": "one"}\n', r"jsonl, line 2: it has no 'text'"),
    ("manifest.jsonl", LINE + "\n{audio: x}\n", r"jsonl, line 3: this is not JSON"),
    ("manifest.jsonl", '["wavs/a.wav"]\n', r"jsonl, line 1: this is no JSON object"),
    (
        "manifest.jsonl",
        LINE + '{"audio": "wavs/z.wav", "text": "one"}\n',
        "line 2: audio is 'wavs/z.wav', and there is no",
    ),
    ("manifest.jsonl", LINE + '{"audio": null, "text": "one"}\n', "line 2: it has no 'audio'"),
    ("manifest.jsonl", "\n", "has no entries"),
    ("manifest.csv", "audio,txt\nwavs/a.wav,one\n", r"no column text \(found: audio, txt\).*Did you mean 'txt'"),
    ("manifest.csv", "audio:text\nwavs/a.wav:one\n", r"no column audio \(found: audio:text\)"),
    ("manifest.csv", "audio,text,text\nwavs/a.wav,one,two\n", "csv, line 1: the header has 'text' twice"),
    ("manifest.csv", "audio,text\nwavs/a.wav,o\0ne\n", "csv, line 2: it holds a NUL"),
    (
        "manifest.jsonl",
        '{"audio": "wavs/a.wav", "text": "one", "text": "two"}',
        "line 1: this is not JSON .it has 'text' twice",
    ),
    (
        "manifest.jsonl",
        '{"audio": "wavs/a.wav", "text": ' + "[" * 99_999,
        "line 1: this is not JSON .brackets in brackets",
    ),
    (
        "manifest.jsonl",
        LINE + '{"audio": "wavs/a.wav", "text": ' + "1" * 4_301,
        "line 2: this is not JSON .*4,301 digits",
    ),
    ("manifest.jsonl", "[\n" + LINE.strip() + ",\n]", "line 3: this is not JSON"),
    ("manifest.csv", "audio,text\nwavs/a.wav,one, two\n", r"csv, line 2: it has 3 fields, but the header has 2"),
    ("manifest.csv", 'audio,text\nwavs/a.wav,"one\n', r"csv, line 2: this is not CSV"),
    ("manifest.csv", "audio,text\n", "has no entries"),
    ("manifest.csv", b"audio,text\nwavs/a.wav,na\xefve\n", r"csv, line 2: this is not UTF-8"),
    ("clips.parquet", "no parquet", "is not a readable parquet file"),
    ("notes.txt", "nothing", "has no manifest, no parquet file and no saved data set"),
    ("state.json", "{", "is no data set on disk that can be read"),
]


@pytest.mark.parametrize(("name", "content", "expected"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_named(tmp_path: Path, name: str, content: str | bytes, expected: str) -> None:
    (sounds(tmp_path) / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=rf"(?s)^dataset(\.root)?: .*{expected}"):
        load_utterances(local(tmp_path), seed=0)


def test_what_is_not_one_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^dataset\.root: it is not set.*Set dataset\.root to the folder, manifest"):
        load_utterances(dataset(None, source=None), seed=0)
    with pytest.raises(UserError, match=r"^dataset\.root: there is no folder 'absent'"):
        load_utterances(local("absent"), seed=0)
    comma_separated(json_lines(sounds(tmp_path)))
    with pytest.raises(UserError, match=r"several manifests \(manifest\.csv, manifest\.jsonl\)\. Name one"):
        load_utterances(local(tmp_path), seed=0)
    with pytest.raises(UserError, match=r"a\.wav is neither \.jsonl, \.csv, \.tsv nor \.parquet"):
        load_utterances(local(tmp_path / "wavs" / "a.wav"), seed=0)
    (tmp_path / "layout").mkdir()
    hub_layout(tmp_path / "layout")
    assert len(load_utterances(local(tmp_path / "layout"), seed=0)) == len(TEXTS)  # its only config and split
    shutil.copytree(tmp_path / "layout" / "own", tmp_path / "layout" / "other")
    with pytest.raises(UserError, match=r"^dataset\.config: .* has several configs\. Available: other, own\. Choose"):
        load_utterances(local(tmp_path / "layout"), seed=0)


def test_a_manifest_beside_a_table_is_named(tmp_path: Path) -> None:
    bytes_in_parquet(json_lines(sounds(tmp_path)))
    with pytest.raises(UserError, match=r"has a manifest and a table: manifest\.jsonl, clips-0\.parquet"):
        load_utterances(local(tmp_path), seed=0)


def test_parquet_files_that_differ_in_their_columns_are_named(tmp_path: Path) -> None:
    bytes_in_parquet(tmp_path)
    pq.write_table(pa.table({"other": [1]}), tmp_path / "clips-2.parquet")
    with pytest.raises(UserError, match=r"clips-2\.parquet has the columns other"):
        load_utterances(local(tmp_path), seed=0)
