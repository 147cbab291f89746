import json
import os
from pathlib import Path

import pytest

from subnet_search.errors import SubnetSearchError
from subnet_search.files import append_line, check_out, new_folder, write_bytes, write_json, write_text


def test_writes_content_and_missing_parents(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b.bin", b"\x00\xff")
    write_text(tmp_path / "a" / "c.txt", "Größe")
    write_json(tmp_path / "a" / "d.json", {"x": [1, None], "ü": 0.5})
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"\x00\xff"
    assert (tmp_path / "a" / "c.txt").read_text(encoding="utf-8") == "Größe"
    assert json.loads((tmp_path / "a" / "d.json").read_text(encoding="utf-8")) == {"x": [1, None], "ü": 0.5}
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["b.bin", "c.txt", "d.json"]


def test_others_may_read_the_file_as_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "file", "")
        with new_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755


def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    write_json(target, {})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(target, {"NLL": float("nan")})
    assert json.loads(target.read_text()) == {}


@pytest.mark.parametrize("exists", [False, True])
def test_folder_appears_complete(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "deep" / "out"
    if exists:
        target.mkdir(parents=True)
    with new_folder(target) as folder:
        assert folder.parent == target.parent
        (folder / "part").write_text("1")
        assert not (target / "part").exists()
    assert (target / "part").read_text() == "1"
    assert list(target.parent.iterdir()) == [target]


def test_failed_folder_disappears(tmp_path: Path) -> None:
    def fails() -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "part").write_text("1")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fails()
    assert list(tmp_path.iterdir()) == []


def test_folder_never_replaces_anything(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "part").write_text("old")
    with pytest.raises(SubnetSearchError, match=r"full: found a folder that is not empty.*choose another name"):
        new_folder(tmp_path / "full").__enter__()
    with pytest.raises(SubnetSearchError, match="found a file, expected nothing"):
        new_folder(tmp_path / "file").__enter__()
    assert (tmp_path / "full" / "part").read_text() == "old"


def test_whether_a_file_can_be_written_is_known_before(tmp_path) -> None:
    there = tmp_path / "there.json"
    there.write_text("old")
    check_out(there)
    check_out(tmp_path / "new" / "out.json")
    assert there.read_text() == "old"
    assert list((tmp_path / "new").iterdir()) == []
    with pytest.raises(SubnetSearchError, match=r"there.json/out.json cannot be written .*; choose another --out"):
        check_out(there / "out.json")
    with pytest.raises(SubnetSearchError, match=r"new cannot be written \(it is a folder\)"):
        check_out(tmp_path / "new")


def test_half_a_line_takes_no_other_with_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lines"
    for line in ("ü", "two"):
        append_line(path, line)
    path.write_bytes(path.read_bytes() + b'{"cut of')
    append_line(path, "four")
    assert path.read_text(encoding="utf-8") == 'ü\ntwo\n{"cut of\nfour\n'
