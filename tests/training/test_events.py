from pathlib import Path

from training.events import append_event, read_events


def messages(path: Path, offset: int = 0) -> list[str]:
    return [event.message for event, _ in read_events(path, offset)]


def test_events_come_back_as_they_were_appended(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    first = append_event(path, "Größe\n5", "warn", {"step": 3, "train_loss": 0.5})
    second = append_event(path, "end", "error")
    assert [event for event, _ in read_events(path)] == [first, second]
    assert first.at.utcoffset() is not None and first.at <= second.at
    assert path.read_text(encoding="utf-8").count("\n") == 2


def test_reading_goes_on_from_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_event(path, "one")
    append_event(path, "two")
    [(_, after_one), (_, after_two)] = read_events(path)
    assert messages(path, after_one) == ["two"]
    assert messages(path, after_two) == []
    append_event(path, "three")
    assert messages(path, after_two) == ["three"]


def test_there_may_be_no_file_yet(tmp_path: Path) -> None:
    assert messages(tmp_path / "events.jsonl") == []


def test_half_a_line_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_event(path, "one")
    append_event(path, "two")
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    [(event, offset)] = read_events(path)
    assert event.message == "one"
    path.write_bytes(whole)
    assert messages(path, offset) == ["two"]


def test_broken_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_event(path, "one")
    with path.open("ab") as file:
        file.write(b'{"at": 1\n[]\nnull\n\n\xff\xfe\n' + b"\0" * 40 + b'\n{"message": "no time"}\n')
    append_event(path, "two")
    assert messages(path) == ["one", "two"]


def test_a_line_after_a_crash_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_event(path, "one")
    with path.open("ab") as file:
        file.write(b'{"at": "2026-')
    append_event(path, "two")
    append_event(path, "three")
    assert messages(path) == ["one", "two", "three"]
    assert b"\n\n" not in path.read_bytes()
