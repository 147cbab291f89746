"""ONNX: checked before it is written, and of use to someone who has neither PyTorch nor this package."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from subnet_search.backbones import Card
from subnet_search.errors import SubnetSearchError
from subnet_search.formats import onnx as formats_onnx
from subnet_search.formats.deployable import OUTPUTS
from subnet_search.formats.onnx import export_onnx

README = (Path(__file__).parents[2] / "README.md").read_text()
(SCRIPT,) = re.findall(r"<!-- script: onnx -->\n```python\n(.*?)```", README, re.DOTALL)
NO_TORCH = "import sys; sys.modules['torch'] = None  # from here on, importing it raises"


@pytest.fixture(autouse=True)
def onnx_packages(needs) -> None:
    needs("onnx")


def _run(path, images: Tensor) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return session.run(list(OUTPUTS), {"images": images.numpy()})


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [("digits", "grouped", "uint8"), ("padded", "sliced", "float"), ("padded", "masked", "normalised")],
)
def test_onnxruntime_answers_as_predict_does(request, tmp_path, packed, noise, as_kind, name, shape, kind) -> None:
    ensemble = request.getfixturevalue(name)
    network = ensemble if shape == "masked" else packed(ensemble, shape)
    written = export_onnx(network, ensemble.card, tmp_path / "deep" / "net.onnx", input_kind=kind)
    assert [path.name for path in written.path.parent.iterdir()] == ["net.onnx"]
    assert written.bytes == written.path.stat().st_size
    assert written.batches == (1, 2, 7, 64)
    assert written.difference < 1e-5
    images = noise(ensemble.card, 5)
    expected = ensemble.predict(images)
    for output, answer in zip(OUTPUTS, _run(written.path, as_kind(ensemble.card, images, kind)), strict=True):
        assert answer.dtype == np.float32
        torch.testing.assert_close(torch.from_numpy(answer).double(), getattr(expected, output), atol=2e-5, rtol=0)


def test_small_mutual_information_survives(tmp_path, noise) -> None:
    class Sure(nn.Module):
        """Members that are nearly equal and nearly certain."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 4)
            self.shift = nn.Buffer(torch.tensor([1.0, 1.003, 0.999])[:, None, None])

        def forward(self, x: Tensor) -> Tensor:
            return 4.0 * self.head(x.flatten(1)) * self.shift

    torch.manual_seed(0)
    network, card = Sure(), Card("sure", (1, 8, 8), ("a", "b", "c", "d"))
    written = export_onnx(network, card, tmp_path / "net.onnx")
    images = noise(card, 50)
    with torch.no_grad():
        members = network(card.prepare(images)).double().softmax(dim=2)
    exact = _exact_mutual_information(members)
    found = torch.from_numpy(_run(written.path, images)[4]).double()
    assert 1e-8 < exact.median() < 1e-4
    assert ((found - exact).abs() / exact).max() < 1e-2


def _exact_mutual_information(members: Tensor) -> Tensor:
    mean = members.mean(dim=0)
    return -(mean * mean.log()).sum(dim=1) + (members * members.log()).sum(dim=2).mean(dim=0)


def test_the_file_tells_what_it_is(tmp_path, padded, packed) -> None:
    import onnxruntime

    network = packed(padded, "sliced")
    written = export_onnx(network, padded.card, tmp_path / "net.onnx", refuse={"max_probability": 0.25, "energy": -3.5})
    session = onnxruntime.InferenceSession(written.path)
    found = session.get_modelmeta().custom_metadata_map
    assert json.loads(found["classes"]) == ["cat", "dog", "ship", "Übung"]
    assert json.loads(found["normalisation"]) == {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]}
    assert json.loads(found["versions"])["torch"] == torch.__version__
    assert json.loads(found["outputs"]) == dict(OUTPUTS)
    assert json.loads(found["refuse"]) == {"max_probability": {"below": 0.25}, "energy": {"above": -3.5}}
    assert (found["members"], found["masks_sha256"]) == ("3", padded.masks.digest())
    (given,) = session.get_inputs()
    assert (given.name, given.shape, given.type) == ("images", ["batch", 3, 16, 16], "tensor(uint8)")
    shapes = {output.name: output.shape for output in session.get_outputs()}
    assert shapes["member_probabilities"] == [3, "batch", 4]
    assert list(shapes) == list(OUTPUTS)


@pytest.mark.parametrize("refuse", [None, {"energy": 0.0}, {"total": 10.0}, {"total": 0.0}])
def test_ten_lines_without_pytorch_classify_an_image(tmp_path, digits, packed, digits_data, refuse) -> None:
    written = export_onnx(packed(digits, "grouped"), digits.card, tmp_path / "net.onnx", refuse=refuse)
    image = digits_data[1].images[0]
    np.save(tmp_path / "image.npy", image.numpy())
    (tmp_path / "classify.py").write_text(f"{NO_TORCH}\n{SCRIPT}")
    command = [sys.executable, "classify.py", written.path.name, "image.npy"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    label, *pairs = result.stdout.split()
    expected = digits.predict(image[None])
    known = refuse != {"total": 0.0}
    assert label == (digits.card.classes[int(expected.probabilities.argmax())] if known else "refused")
    for name, value in zip(pairs[::2], pairs[1::2], strict=True):
        assert float(value) == pytest.approx(float(getattr(expected, name)), abs=2e-4)


def test_a_file_that_differs_is_not_written(tmp_path, digits) -> None:
    class Moody(nn.Module):
        """Answers otherwise when it is written down."""

        def forward(self, x: Tensor) -> Tensor:
            logits = x.flatten(1)[None, :, :10]
            return logits * (1.001 if torch.compiler.is_exporting() else 1.0)

    path = tmp_path / "net.onnx"
    path.write_bytes(b"what was there before")
    with pytest.raises(SubnetSearchError, match=r"net.onnx: output 'probabilities' differs from PyTorch's by .* at most 1e-0[56]"):  # fmt: skip
        export_onnx(Moody(), digits.card, path, tolerance=1e-6)
    assert path.read_bytes() == b"what was there before"
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


def test_the_card_of_another_network_is_refused(tmp_path) -> None:
    card = Card("other", (1, 8, 8), ("a", "b"))
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(
        SubnetSearchError, match="tells 3 classes apart, its card names 2; give the card of this network"
    ):
        export_onnx(network, card, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_do_not_fit_into_one_file_come_beside_it(tmp_path, monkeypatch, digits, noise, packed) -> None:
    monkeypatch.setattr(formats_onnx, "LARGEST", 0)
    written = export_onnx(packed(digits, "grouped"), digits.card, tmp_path / "net.onnx")
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["net.onnx", "net.onnx.data"]
    assert written.bytes == sum((tmp_path / name).stat().st_size for name in files)
    images = noise(digits.card, 2)
    found = torch.from_numpy(_run(written.path, images)[0]).double()
    torch.testing.assert_close(found, digits.predict(images).probabilities, atol=2e-5, rtol=0)


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, digits) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SubnetSearchError, match=r"onnxruntime cannot be imported .* pip install 'subnet-search\[onnx\]'"):  # fmt: skip
        export_onnx(digits, digits.card, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []
