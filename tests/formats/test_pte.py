"""ExecuTorch programs: the same outputs in the runtime of phones and boards."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.ensemble.uncertainty import decompose
from subnet_search.errors import SubnetSearchError
from subnet_search.formats import pte
from subnet_search.formats.deployable import OUTPUTS
from subnet_search.formats.optional import quiet
from subnet_search.formats.pte import export_pte
from subnet_search.packed import member_network

SQUARE = Card("square", (1, 4, 4), ("a", "b", "c", "d"))


@pytest.fixture(autouse=True)
def edge_packages(needs) -> None:
    needs("edge")


def _load(path: Path) -> object:
    with quiet():
        from executorch.runtime import Runtime

        return Runtime.get().load_program(path)


def _run(path: Path, images: Tensor) -> list[Tensor]:
    program = _load(path)
    return [output.clone() for output in program.load_method("forward").execute([images])]


def test_the_runtime_answers_as_predict_does(tmp_path, digits, packed, digits_data) -> None:
    written = export_pte(packed(digits, "grouped"), digits.card, tmp_path / "deep" / "net.pte")
    assert written.bytes == written.path.stat().st_size
    assert written.batches == (1,)
    assert written.difference < 1e-5
    assert written.int8 is None
    # means over members and sums over classes are what XNNPACK has no kernel for; convolutions it has
    assert written.delegates >= 1
    assert written.outside["aten.sum.dim_IntList"] == 3
    assert not [name for name in written.outside if "conv" in name or "addmm" in name or "relu" in name]
    images = digits_data[1].images[:4]
    expected = digits.predict(images)
    for k in range(4):
        for output, answer in zip(OUTPUTS, _run(written.path, images[k : k + 1]), strict=True):
            wanted = getattr(expected, output)
            wanted = wanted[:, k : k + 1] if output == "member_probabilities" else wanted[k : k + 1]
            torch.testing.assert_close(answer.double(), wanted, atol=2e-5, rtol=0)


def test_a_member_with_padded_shortcuts_and_what_the_file_tells(tmp_path, padded, noise, as_kind) -> None:
    member = member_network(padded, 2)
    asked = {"batch": 3, "input_kind": "float", "refuse": {"energy": -1.5}}
    written = export_pte(member, padded.card, tmp_path / "member.pte", **asked)
    images = noise(padded.card, 3)
    expected = padded.predict(images).member_probabilities[2]
    found = _run(written.path, as_kind(padded.card, images, "float"))
    torch.testing.assert_close(found[0].double(), expected, atol=2e-5, rtol=0)
    program = _load(written.path)
    (classes,) = program.load_method("classes").execute([])
    (given,) = program.load_method("input").execute([])
    assert json.loads(classes) == ["cat", "dog", "ship", "Übung"]
    assert json.loads(given)["shape"] == [3, 3, 16, 16]
    (refuse,) = program.load_method("refuse").execute([])
    assert json.loads(refuse) == {"energy": {"above": -1.5}}
    assert "masks_sha256" not in program.method_names


def test_small_mutual_information_survives(tmp_path) -> None:
    class Sure(nn.Module):
        """Members that are nearly equal and nearly certain."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(16, 4)
            self.shift = nn.Buffer(torch.tensor([1.0, 1.003, 0.999])[:, None, None])

        def forward(self, x: Tensor) -> Tensor:
            return 12.0 * self.head(x.flatten(1)) * self.shift

    network = Sure()
    written = export_pte(network, SQUARE, tmp_path / "net.pte", batch=50)
    images = torch.randint(0, 256, (50, 1, 4, 4)).to(torch.uint8)
    with torch.no_grad():
        exact = decompose(network(SQUARE.prepare(images)).double().softmax(dim=2)).epistemic
    found = _run(written.path, images)[4].double()
    assert 1e-9 < exact.median() < 1e-4
    assert ((found - exact).abs() / exact).median() < 1e-3
    assert ((found - exact).abs() / exact)[exact > 1e-8].max() < 2e-2


def test_a_file_that_differs_is_not_written(tmp_path) -> None:
    class Moody(nn.Module):
        """Answers otherwise when it is written down."""

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :4] * (2.0 if torch.compiler.is_exporting() else 1.0)

    with pytest.raises(SubnetSearchError, match=r"net.pte: output 'probabilities' differs from PyTorch's by .* nothing was"):  # fmt: skip
        export_pte(Moody(), SQUARE, tmp_path / "net.pte")
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_the_runtime_does_not_load_is_told_by_the_first_line(tmp_path, monkeypatch) -> None:
    class Runtime:
        """XNNPACK refuses a part of the program."""

        @classmethod
        def get(cls) -> "Runtime":
            return cls()

        def load_program(self, content: bytes) -> "Runtime":
            assert content == b"program"
            return self

        def load_method(self, name: str) -> None:
            raise RuntimeError(f"Failed to load method {name}\nand much more")

    class Module:
        pass

    Module.Runtime = Runtime
    monkeypatch.setattr(pte, "require", lambda *_: Module)
    monkeypatch.setattr(pte, "_lower", lambda *_: (b"program", 1, {}))
    monkeypatch.setattr(pte, "quantise", lambda deployable, *_, **__: deployable)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    reason = r"net.pte: .* cannot load the file \(RuntimeError: Failed to load method forward\); nothing was written"
    with pytest.raises(SubnetSearchError, match=rf"{reason}. Please report it with the network$"):
        export_pte(network, SQUARE, tmp_path / "net.pte")
    with pytest.raises(SubnetSearchError, match=rf"{reason}. Please export it without int8$"):
        export_pte(network, SQUARE, tmp_path / "net.pte", calibration=[])
    assert list(tmp_path.iterdir()) == []


def test_what_makes_no_sense_is_refused(tmp_path, monkeypatch, digits, digits_data) -> None:
    with pytest.raises(SubnetSearchError, match="got a batch of 0 images, expected at least 1"):
        export_pte(digits, digits.card, tmp_path / "net.pte", batch=0)
    with pytest.raises(SubnetSearchError, match="the cost of int8, which needs calibration images too"):
        export_pte(digits, digits.card, tmp_path / "net.pte", labelled=digits_data[1])

    def missing(module: str, extra: str) -> None:
        raise SubnetSearchError(f"{module} of {extra} is missing")

    monkeypatch.setattr(pte, "require", missing)
    with pytest.raises(SubnetSearchError, match=r"executorch.runtime of edge is missing"):
        export_pte(digits, digits.card, tmp_path / "net.pte")
    assert list(tmp_path.iterdir()) == []
