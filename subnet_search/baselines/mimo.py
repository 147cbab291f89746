"""MIMO: a network that takes in M images at once and answers to each of them (Havasi et al. 2021)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from subnet_search.backbones import Backbone, Card
from subnet_search.ensemble import Predictor
from subnet_search.ensemble.modes import eval_mode
from subnet_search.errors import SubnetSearchError
from subnet_search.groups import GroupGraph, find_groups


class Mimo(Predictor):
    """M inputs on the channel axis of each member, M heads; at test time the image is repeated in all of them.

    Args:
        predictor: Members over a network that `widened` has made.
        inputs: Number of inputs M of each member.
        card: Card of the network before it was widened.
    """

    def __init__(self, predictor: Predictor, inputs: int, card: Card) -> None:
        super().__init__()
        self.predictor = predictor
        self.inputs = inputs
        self.members = predictor.members * inputs
        self.card = card

    def forward(self, x: Tensor, repeat: bool = True) -> Tensor:
        """Computes the logits `[member, batch, class]`; member k · M + m is input m of the k-th member inside."""
        networks = self.predictor.members
        if repeat:
            logits = self.predictor(x.repeat(1, self.inputs, *[1] * (x.ndim - 2)))
        else:
            rows = torch.unflatten(self._rows(x, repeat), 0, (networks, self.inputs, -1))
            logits = self.predictor(rows.transpose(1, 2).flatten(2, 3).flatten(0, 1), repeat=False)
        answers = torch.unflatten(logits, 2, (self.inputs, -1))  # [network, batch, input, class]
        return answers.transpose(1, 2).flatten(0, 1)

    def macs(self) -> int:
        """Returns the multiply-accumulates of all members together for one image."""
        return self.predictor.macs()

    def identity(self) -> Mapping[str, Any]:
        """Returns the number of inputs, and what the members inside are made of."""
        return {**self.predictor.identity(), "inputs": self.inputs}


def widened(backbone: Backbone, graph: GroupGraph, inputs: int, seed: int) -> tuple[Backbone, GroupGraph]:
    """Gives a network M inputs on the channel axis and M times the classes; with M = 1 it stays what it is.

    The first convolution gets its own weights M times over, divided by M, so that M equal images come through as one;
    the head gets its own weights M times over. With several inputs, noise of the same standard deviation as the first
    weights is added to them for each input: inputs that all start alike would learn alike.

    Args:
        backbone: The network; it is not changed.
        graph: Its groups.
        inputs: Number of inputs M, at least 1.
        seed: Seed of the noise.

    Returns:
        The network with a card of its new input and classes, and its groups, which have the names they had.

    Raises:
        SubnetSearchError: where the network does not begin with one convolution or end with one linear layer.
    """
    network, card = copy.deepcopy(backbone.model), backbone.card
    stem = _stem(network, card)
    if graph.head is None:
        raise SubnetSearchError(
            f"MIMO needs logits that a linear layer writes, those of {card.name!r} are written by something else"
        )
    first, head = network.get_submodule(stem), network.get_submodule(graph.head)
    assert isinstance(first, nn.modules.conv._ConvNd)
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        weight = first.weight.repeat(1, inputs, *[1] * (first.weight.ndim - 2))
        if inputs > 1:
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
            weight = weight + first.weight.std().cpu() * noise.to(weight.device)
        first.weight = nn.Parameter(weight / inputs)
        first.in_channels *= inputs
        head.weight = nn.Parameter(head.weight.repeat(inputs, 1))
        head.bias = None if head.bias is None else nn.Parameter(head.bias.repeat(inputs))
        head.out_features *= inputs
    channels, *size = card.input_shape
    wide = replace(
        card,
        input_shape=(inputs * channels, *size),
        classes=tuple(f"{m}:{name}" for m in range(inputs) for name in card.classes),
        mean=(card.mean * channels)[:channels] * inputs,
        std=(card.std * channels)[:channels] * inputs,
    )
    return replace(backbone, model=network, card=wide), find_groups(network, torch.zeros(2, *wide.input_shape))


def _stem(network: nn.Module, card: Card) -> str:
    """Name of the convolution that alone reads the image."""
    readers: list[str] = []
    example = torch.zeros(1, *card.input_shape)

    def note(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and isinstance(inputs[0], Tensor) and inputs[0].data_ptr() == example.data_ptr():
                readers.append(name)

        return hook

    leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    hooks = [module.register_forward_pre_hook(note(name)) for name, module in leaves]
    try:
        with eval_mode(network), torch.no_grad():
            network.cpu()(example)
    finally:
        for hook in hooks:
            hook.remove()
    first = network.get_submodule(readers[0]) if len(readers) == 1 else None
    if not isinstance(first, nn.modules.conv._ConvNd) or first.groups != 1:
        raise SubnetSearchError(
            f"MIMO needs a network that begins with one convolution, the image of {card.name!r} is read by {readers or 'no layer alone'}"
        )
    return readers[0]
