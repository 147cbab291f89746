"""Trains every system of the test beside this file; started once alone and once as two processes.

python tests/finetune/two_processes.py FILE
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from accelerate import Accelerator

from subnet_search.baselines import build
from subnet_search.ensemble import EnsembleConfig, Predictor
from subnet_search.errors import SubnetSearchError
from subnet_search.finetune import FinetuneConfig, finetune
from subnet_search.processes import from_main

TESTS = Path(__file__).parents[1]


def module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.replace("/", "_"), TESTS / f"{path}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found  # dataclasses look there
    spec.loader.exec_module(found)
    return found


def small_networks() -> dict[str, Callable[..., Any]]:
    """Name → a training of the small network: `train(accelerator, checkpoint)`."""
    conftest = module("finetune/conftest")
    torch.manual_seed(0)
    network = conftest.SmallNet().eval()
    graph = conftest.find_groups(network, torch.zeros(1, 2, 6, 6))
    small = conftest.Small(network, graph, conftest.learnable(40))

    def training(sharing: EnsembleConfig | None = None, thin: bool | None = None, **changes: Any) -> Any:
        config = FinetuneConfig(**{"epochs": 2, "batch_size": 15, "precision": "fp32", **changes})

        def train(accelerator: Accelerator, checkpoint: Path) -> tuple[Predictor, Any]:
            ensemble = small.ensemble(3, config=sharing)
            if accelerator.process_index == 1:
                with torch.no_grad():
                    ensemble.network.conv1.weight.zero_()  # the weights of the main process count
            return ensemble, finetune(
                ensemble, small.data, config, teacher=network, thin=thin, accelerator=accelerator, checkpoint=checkpoint
            )

        return train

    return {
        "thin": training(thin=True),
        "masked": training(thin=False),
        "shared norms": training(EnsembleConfig("shared"), momentum=0.0),
        "the same images": training(mode="repeat", decorrelate=0.5, joint=0.5, augment="crop-flip"),
        "bootstraps": training(mode="independent", bagging=True, augment="crop-flip", distill=0.4),
        "repeated images": training(batch_repetition=2, augment="crop-flip"),
    }


def systems() -> dict[str, Callable[..., Any]]:
    """Method → a training of the network of the baselines' tests."""
    conftest = module("baselines/conftest")

    def training(method: str) -> Any:
        def train(accelerator: Accelerator, checkpoint: Path) -> tuple[Predictor, Any]:
            setup = conftest.setup_of()
            system = build(method, setup)
            config = system.phases[0].config
            return system.predictor, finetune(
                system.predictor, setup.splits.train, config, accelerator=accelerator, checkpoint=checkpoint
            )

        return train

    return {
        name: training(name) for name in ("mc_dropout", "random+stochastic_depth", "mimo", "batch_ensemble", "bagging")
    }


def refusals(accelerator: Accelerator) -> list[str]:
    """What is said where processes cannot do something together."""
    conftest = module("finetune/conftest")
    network = conftest.SmallNet().eval()
    small = conftest.Small(network, conftest.find_groups(network, torch.zeros(1, 2, 6, 6)), conftest.learnable(40))
    found = []
    for change in ("rows", "gates", "labels", "main"):
        ensemble, data = small.ensemble(3), small.data
        config = FinetuneConfig(epochs=1, batch_size=3 if change == "rows" else 12, precision="fp32")
        ensemble.shareable = change != "gates"
        if change == "labels":
            data = type(data)(data.images, data.labels.where(torch.arange(40) != 7, torch.tensor(-1)))
        try:
            if change == "main":
                from_main(accelerator, failing)
            finetune(ensemble, data, config, accelerator=accelerator)
        except SubnetSearchError as problem:
            found.append(str(problem))
    return found


def failing() -> None:
    raise SubnetSearchError("only the main process has looked")


def main(path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    results: dict[str, Any] = {"processes": accelerator.num_processes}
    for name, train in {**small_networks(), **systems()}.items():
        checkpoint = path.with_suffix("") / f"{name}.pt"
        predictor, history = train(accelerator, checkpoint)
        assert checkpoint.exists()
        again, read = train(accelerator, checkpoint)
        assert read == history or not accelerator.is_main_process
        state = predictor.state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in again.state_dict().items())
        theirs = from_main(accelerator, lambda state=state: dict(state))
        assert all(
            torch.equal(tensor, state[key]) for key, tensor in theirs.items()
        )  # processes have not drifted apart
        results[name] = {"state": state, "losses": history.losses, "samples": history.samples_seen}
    if accelerator.num_processes > 1:
        results["refusals"] = refusals(accelerator)
    torch.save(results, path.with_suffix(f".{accelerator.process_index}"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
