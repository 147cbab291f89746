"""Of several files, the one is kept that its own runtime runs fastest."""

import time
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from subnet_search.errors import SubnetSearchError
from subnet_search.formats.agreement import Written
from subnet_search.formats.fastest import export_fastest
from subnet_search.packed import PackedEnsemble

IMAGES = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)


class Slow(nn.Module):
    """A file that takes as long as its text says."""

    given: ClassVar[list[Tensor]] = []

    def __init__(self, path: Path, threads: int) -> None:
        super().__init__()
        assert threads == torch.get_num_threads()
        self.seconds = float(path.read_text())

    def forward(self, x: Tensor) -> None:
        self.given.append(x)
        time.sleep(self.seconds)


def writer(seconds: dict[str, float]):
    def write(packed: PackedEnsemble, path: Path) -> Written:
        shape = packed.form.shape
        if shape not in seconds:
            raise SubnetSearchError(f"{path}: {shape} has no counterpart")
        path.parent.mkdir(parents=True)
        path.write_text(str(seconds[shape]))
        (path.parent / f"{path.name}.data").write_text(shape)
        return Written(path, 3, 0.5, (1,))

    return write


@pytest.mark.parametrize("best", ["sliced", "grouped"])
def test_the_fastest_is_kept_with_what_it_refers_to(digits, tmp_path, best) -> None:
    seconds = {shape: 0.001 if shape == best else 0.05 for shape in ("sliced", "grouped", "merged")}
    target = tmp_path / "out" / "net.file"
    found = export_fastest(digits, IMAGES, target, writer(seconds), Slow, batch=6)
    assert (found.form, found.written) == (best, Written(target, 3, 0.5, (1,)))
    assert next(iter(found.timings_ms)) == best
    assert len(found.timings_ms) >= 2
    assert {path.name: path.read_text() for path in target.parent.iterdir()} == {
        "net.file": "0.001",
        "net.file.data": best,
    }
    assert Slow.given[-1].shape == (6, 1, 8, 8)


def test_what_cannot_be_written_is_left_out(digits, tmp_path) -> None:
    found = export_fastest(digits, IMAGES, tmp_path / "net", writer({"grouped": 0.0}), Slow)
    assert list(found.timings_ms) == ["grouped"]
    assert found.unavailable["sliced"] == f"{tmp_path}/net: sliced has no counterpart"
    assert list(found.unavailable) == ["sliced", "merged"]


def test_where_nothing_can_be_written_each_reason_is_told_once_and_by_the_name_that_was_asked_for(
    digits, tmp_path
) -> None:
    with pytest.raises(SubnetSearchError) as told:
        export_fastest(digits, IMAGES, tmp_path / "net", writer({}), Slow)
    assert str(told.value).count(f"{tmp_path}/net: sliced has no counterpart") == 1
    assert f"{tmp_path}/net: grouped has no counterpart" in str(told.value)
    assert not list(tmp_path.iterdir())
