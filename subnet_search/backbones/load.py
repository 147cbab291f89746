"""From a name and a file of weights to a network that is ready to be searched."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from subnet_search.backbones.card import Argument, Card
from subnet_search.backbones.checkpoint import check_finite, load_weights, read_checkpoint
from subnet_search.backbones.digits import DigitsNet
from subnet_search.backbones.resnet import resnet20, resnet32, resnet44, resnet56
from subnet_search.errors import SubnetSearchError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

BUILT_IN: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {"digits": DigitsNet, "resnet20": resnet20, "resnet32": resnet32, "resnet44": resnet44, "resnet56": resnet56}
)
"""Name → what builds the network from the arguments `classes`, `inputs` (both numbers) and `width`."""


@dataclass(frozen=True)
class Backbone:
    """A trained network and what it expects.

    Attributes:
        model: The network in eval mode, on the CPU: prepared float images `[batch, *input_shape]` → logits
            `[batch, class]`.
        card: Its input shape, normalisation and classes.
    """

    model: nn.Module
    card: Card


def load_backbone(
    name: str,
    weights: str | Path | None = None,
    *,
    card: Card | None = None,
    classes: Sequence[str] | int | None = None,
    input_shape: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    **arguments: Argument,
) -> Backbone:
    """Loads a trained network.

    Args:
        name: `digits`, `resnet20`, `resnet32`, `resnet44`, `resnet56`, or `module:callable` for anything importable
            that returns an `nn.Module`.
        weights: `.safetensors` file or PyTorch checkpoint. None takes the weights that come along with `digits`, or
            those that the user's callable has set; `"random"` takes none, for training from scratch.
        card: Input shape, normalisation and classes; built-in networks have one. The arguments below change it.
        classes: Class names in the order of the logits, or their number.
        input_shape: `(channels, height, width)` of one image.
        mean: Per-channel mean of the training images, in [0, 1].
        std: Per-channel standard deviation of the training images, in [0, 1].
        seed: Seed of the random weights.
        **arguments: Handed to the callable that builds the network, such as `width=32`.

    Returns:
        The network in eval mode and its card.

    Raises:
        SubnetSearchError: where the network cannot be built, weights are missing or do not fit, or the network does
            not turn an image of `input_shape` into one logit for each class.
    """
    card = _card(name, card, classes, input_shape, mean, std, arguments)
    model = build_network(card, seed)
    if weights == "random":
        pass
    elif weights is not None:
        load_weights(model, read_checkpoint(weights), weights)
    elif name == "digits":
        with as_file(files("subnet_search.backbones") / "assets" / "digits.safetensors") as path:
            load_weights(model, read_checkpoint(path), path)
    elif name in BUILT_IN:
        raise SubnetSearchError(
            f"backbone {name!r} comes without weights; give a .safetensors file or PyTorch checkpoint as weights, or 'random' to train from scratch"
        )
    check_finite(model.state_dict(), f"backbone {name!r}")
    _check_logits(model, card)
    return Backbone(model, card)


def build_network(card: Card, seed: int = 0) -> nn.Module:
    """Builds the network that a card names, without trained weights, in eval mode.

    A card whose name is `module:callable` imports and calls it: build only from cards that you trust.

    Args:
        card: Name and arguments of the network.
        seed: Seed of its initial weights; the global random state is left as it was.

    Raises:
        SubnetSearchError: where there is no such module or callable, it fails, or returns no `nn.Module`.
    """
    build = BUILT_IN[card.name] if card.name in BUILT_IN else _import(card.name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed accelerators too, for good
        try:
            model = build(**dict(card.arguments))
        except Exception as error:
            raise SubnetSearchError(
                f"backbone {card.name!r}: building it with {dict(card.arguments)} failed ({type(error).__name__}: {error})"
            ) from error
    if not isinstance(model, nn.Module):
        raise SubnetSearchError(f"backbone {card.name!r} returned a {type(model).__name__}, expected a torch.nn.Module")
    return model.eval()


def _card(
    name: str,
    card: Card | None,
    classes: Sequence[str] | int | None,
    input_shape: Sequence[int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    arguments: Mapping[str, Argument],
) -> Card:
    """Returns the card of the network: the given or the built-in one, changed by what is given besides."""
    if card is None:
        card = _built_in_card(name) if name in BUILT_IN else None
    if name not in BUILT_IN and ":" not in name:
        raise SubnetSearchError(f"no backbone {name!r}, expected {', '.join(BUILT_IN)} or module:callable")
    if card is None and (input_shape is None or classes is None):
        raise SubnetSearchError(
            f"backbone {name!r} is not built in ({', '.join(BUILT_IN)}), so its input_shape and classes are needed, "
            "such as input_shape=(3, 32, 32), classes=10"
        )
    changes: dict[str, Any] = {"name": name}
    if classes is not None:
        changes["classes"] = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)
    for label, values in (("input_shape", input_shape), ("mean", mean), ("std", std)):
        if values is not None:
            changes[label] = tuple(values)
    card = Card(**changes) if card is None else replace(card, **changes)
    merged = {**dict(card.arguments), **arguments}
    if name in BUILT_IN:
        merged |= {"classes": len(card.classes), "inputs": card.input_shape[0]}
    return replace(card, arguments=tuple(merged.items()))


def _built_in_card(name: str) -> Card:
    if name == "digits":  # mean and deviation of the pixels of its training images
        return Card(name, (1, 8, 8), tuple("0123456789"), (0.305,), (0.376,))
    return Card(name, (3, 32, 32), CIFAR10_CLASSES, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def _import(name: str) -> Callable[..., Any]:
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise SubnetSearchError(f"no backbone {name!r}, expected {', '.join(BUILT_IN)} or module:callable")
    if os.getcwd() not in sys.path:  # a console script does not look in the folder in which it is started
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise SubnetSearchError(
            f"backbone {name!r}: module {module_name!r} cannot be imported ({type(error).__name__}: {error}); "
            "start in its folder or install it"
        ) from error
    build: Callable[..., Any] | None = getattr(module, attribute, None)
    if build is None or not callable(build):
        raise SubnetSearchError(
            f"backbone {name!r}: {module_name!r} has no callable {attribute!r}, expected a function or class that returns a torch.nn.Module"
        )
    return build


def _check_logits(model: nn.Module, card: Card) -> None:
    """Runs the network once, so that a card that does not fit it is found here."""
    expected = (2, len(card.classes))
    try:
        with torch.no_grad():
            logits = model(torch.zeros(2, *card.input_shape))
    except Exception as error:
        raise SubnetSearchError(
            f"backbone {card.name!r} fails on images of shape {card.input_shape} ({type(error).__name__}: {error}); check input_shape"
        ) from error
    found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if found != expected:
        raise SubnetSearchError(
            f"backbone {card.name!r} maps 2 images to {found}, expected logits of shape {expected}: one for each of the {len(card.classes)} classes"
        )
