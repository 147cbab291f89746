"""PyTorch's exported program: reloaded elsewhere, it answers as `predict` does."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from subnet_search.backbones import Card
from subnet_search.errors import SubnetSearchError
from subnet_search.formats.deployable import OUTPUTS
from subnet_search.formats.pt2 import METADATA, export_pt2
from subnet_search.packed import member_network

ALONE = """
import sys
import torch
images = torch.load(sys.argv[2])
torch.save(torch.export.load(sys.argv[1]).module()(images), sys.argv[3])
assert not any(name.startswith("subnet_search") for name in sys.modules)
"""


def test_it_runs_where_this_package_is_not(tmp_path, padded, packed, noise) -> None:
    written = export_pt2(packed(padded, "sliced"), padded.card, tmp_path / "deep" / "net.pt2")
    assert written.bytes == written.path.stat().st_size
    assert written.batches == (1, 2, 7, 64)
    assert written.difference < 1e-5
    images = noise(padded.card, 3)
    torch.save(images, tmp_path / "images.pt")
    files = [str(tmp_path / name) for name in ("deep/net.pt2", "images.pt", "answers.pt")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", ALONE, *files], check=True, cwd=tmp_path)
    answers, expected = torch.load(tmp_path / "answers.pt"), padded.predict(images)
    for output, answer in zip(OUTPUTS, answers, strict=True):
        torch.testing.assert_close(answer.double(), getattr(expected, output), atol=2e-5, rtol=0)


def test_the_masked_network_and_what_it_tells_about_itself(tmp_path, digits) -> None:
    export_pt2(digits, digits.card, tmp_path / "net.pt2", input_kind="float", refuse={"total": 0.5})
    extra = {METADATA: ""}
    torch.export.load(tmp_path / "net.pt2", extra_files=extra)
    found = json.loads(extra[METADATA])
    assert json.loads(found["classes"]) == list("0123456789")
    assert json.loads(found["outputs"]) == dict(OUTPUTS)
    assert json.loads(found["versions"])["torch"] == torch.__version__
    assert json.loads(found["input"])["dtype"] == "float32"
    assert found["masks_sha256"] == digits.masks.digest()
    assert found["members"] == "3"
    assert json.loads(found["refuse"]) == {"total": {"above": 0.5}}


def test_a_member_with_resized_calls_in_its_code(tmp_path, padded) -> None:
    """`ResizedCalls` changes numbers while the code runs; torch.export writes the changed ones down."""
    member = member_network(padded, 1)
    written = export_pt2(member, padded.card, tmp_path / "member.pt2")
    assert written.difference < 1e-5


def test_code_that_branches_on_values_is_refused(tmp_path) -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) if x.sum() > 0 else -x.flatten(1)

    with pytest.raises(SubnetSearchError, match=r"torch.export cannot follow its code .* does not branch on values"):
        export_pt2(Branching(), Card("branching", (1, 1, 2), ("a", "b")), tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []
