import os
import pickle
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from subnet_search.backbones.checkpoint import load_weights, read_checkpoint
from subnet_search.errors import SubnetSearchError


class RunsCode:
    """What an attacker would send: unpickling it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def assert_same(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(state) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "best_prec1": 91.78},
        lambda state: {"epoch": 3, "model": state},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_unwraps_what_training_scripts_write(tmp_path: Path, wrap: Any, zipped: bool) -> None:
    state = network().state_dict()
    torch.save(wrap(state), tmp_path / "weights.pt", _use_new_zipfile_serialization=zipped)
    assert_same(read_checkpoint(tmp_path / "weights.pt"), state)


def test_a_module_that_is_named_module_keeps_its_name(tmp_path: Path) -> None:
    state = {"module.a": torch.zeros(1), "b": torch.ones(1)}
    torch.save(state, tmp_path / "weights.pt")
    assert_same(read_checkpoint(tmp_path / "weights.pt"), state)


def test_reads_safetensors(tmp_path: Path) -> None:
    state = network().state_dict()
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    read = read_checkpoint(tmp_path / "weights.safetensors")
    assert_same({name: read[name] for name in state}, state)


def test_loads_into_the_network_and_takes_old_files_without_the_batch_count() -> None:
    trained, fresh = network(), network()
    state = {name: tensor for name, tensor in trained.state_dict().items() if not name.endswith("num_batches_tracked")}
    load_weights(fresh, state, "old.pt")
    assert_same(fresh.state_dict(), trained.state_dict())


@pytest.mark.parametrize("name", ["none.pt", "none.safetensors"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(SubnetSearchError, match=rf"{name}: found nothing, expected a \.safetensors file or"):
        read_checkpoint(tmp_path / name)


def test_folder_instead_of_file(tmp_path: Path) -> None:
    with pytest.raises(SubnetSearchError, match="found a folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_truncated_files(tmp_path: Path, form: str, keep: float) -> None:
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pt")
    state = nn.Linear(50, 50).state_dict()
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(SubnetSearchError, match=r"weights\.\w+: truncated or not a"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"hello world", b"<html>404</html>", b"\x00" * 100, b"(((", b"\x80\x02"])
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_files_that_are_something_else(tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"weights.{ending}"
    path.write_bytes(content)
    with pytest.raises(SubnetSearchError, match="truncated or not a"):
        read_checkpoint(path)


def write_zip(path: Path, content: Any) -> None:
    torch.save({"state_dict": content}, path)


def write_legacy(path: Path, content: Any) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_pickle_2(path: Path, content: Any) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_pickle_5(path: Path, content: Any) -> None:
    path.write_bytes(pickle.dumps(content, protocol=5))


@pytest.mark.parametrize("write", [write_zip, write_legacy, write_pickle_2, write_pickle_5])
def test_a_pickle_that_wants_to_run_code_does_not(tmp_path: Path, write: Any) -> None:
    made = tmp_path / "made by the attacker"
    write(tmp_path / "weights.pt", RunsCode(made))
    with pytest.raises(
        SubnetSearchError, match=r"wants to execute code.* was not loaded.*safetensors\.torch\.save_file"
    ):
        read_checkpoint(tmp_path / "weights.pt")
    assert not made.exists()


@pytest.mark.parametrize("content", [nn.Linear(2, 2), {"args": Namespace(a=1)}])
def test_pickled_objects_are_named(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(
        SubnetSearchError, match=r"execute code \((torch\.nn\.modules\.linear\.Linear|argparse\.Namespace)\)"
    ):
        read_checkpoint(tmp_path / "weights.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_named(tmp_path: Path, value: float) -> None:
    state = network().state_dict()
    state["1.bias"][1] = value
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(SubnetSearchError, match=r"1 of 2 values of '1\.bias' are NaN or infinite"):
        read_checkpoint(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "the state dict is empty"),
        ({"state_dict": {}}, "the state dict is empty"),
        ([torch.zeros(1)], "found a list, expected a mapping"),
        ({"weight": torch.zeros(1), "epoch": 3}, "entry 'epoch' is a int, expected a tensor"),
    ],
)
def test_files_without_named_tensors(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(SubnetSearchError, match=message):
        read_checkpoint(tmp_path / "weights.pt")


def test_another_architecture_names_the_first_faults_and_both_shapes() -> None:
    state = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Identity(), nn.BatchNorm2d(2)).state_dict()
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(SubnetSearchError) as caught:
        load_weights(model, state, "other.pt")
    message = str(caught.value)
    assert "weights other.pt are those of another architecture than Sequential" in message
    assert "4 missing in the file: 1.weight, 1.bias, 1.running_mean, …" in message
    assert "5 unknown to the network: 2.weight, 2.bias, 2.running_mean, …" in message
    assert (
        "2 of another shape: 0.weight (file (4, 1, 3, 3), network (2, 1, 3, 3)), 0.bias (file (4,), network (2,))"
        in message
    )
    assert_same(model.state_dict(), before)


def test_no_warning_is_left_to_the_user(tmp_path: Path) -> None:
    write_pickle_5(tmp_path / "weights.pt", {"a": 1})
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(SubnetSearchError, match="not a PyTorch checkpoint"):
            read_checkpoint(tmp_path / "weights.pt")
    assert seen == []
