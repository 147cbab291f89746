import pytest
import torch

from subnet_search.device import autocast, resolve

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_asked_for_is_taken(precision):
    assert resolve(CPU, precision) == precision
    assert resolve(torch.device("cuda"), precision) == precision


@pytest.mark.parametrize(
    ("capabilities", "wanted"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"bf16": True}, "bf16"),
        ({"avx2": True, "avx512_bf16": False}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_auto_on_a_processor_follows_its_instructions(monkeypatch, capabilities, wanted):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve(CPU, "auto") == wanted


def test_auto_is_careful_where_the_processor_cannot_be_asked(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert resolve(CPU, "auto") == "fp32"


@pytest.mark.parametrize("native", [True, False])
def test_auto_on_cuda_does_not_count_emulation(monkeypatch, native):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert resolve(torch.device("cuda"), "auto") == ("bf16" if native else "fp32")


def test_auto_on_other_devices_is_full_precision():
    assert resolve(torch.device("mps"), "auto") == "fp32"


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_computes_in_that_precision_and_leaves_the_weights(precision, dtype):
    layer = torch.nn.Linear(3, 2)
    with autocast(CPU, precision):
        out = layer(torch.ones(1, 3))
    assert out.dtype == dtype
    assert layer.weight.dtype == torch.float32
    assert layer(torch.ones(1, 3)).dtype == torch.float32
