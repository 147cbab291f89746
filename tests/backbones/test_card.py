import json
from typing import Any

import pytest
import torch

from subnet_search.backbones import Card
from subnet_search.errors import SubnetSearchError

CARD = Card("a:b", (3, 4, 5), ("cat", "dog"), (0.1, 0.2, 0.3), (1.0, 2.0, 4.0), (("width", 8), ("deep", True)))


def test_survives_json() -> None:
    assert Card.from_dict(json.loads(json.dumps(CARD.to_dict()))) == CARD


def test_integers_stand_for_floats() -> None:
    card = Card.from_dict({**CARD.to_dict(), "mean": [0], "std": [1]})
    assert card.mean == (0.0,)
    assert isinstance(card.std[0], float)


def test_prepare_is_the_formula() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    prepared = CARD.prepare(images)
    assert prepared.dtype == torch.float32
    for channel in range(3):
        expected = (images[:, channel].double() / 255 - CARD.mean[channel]) / CARD.std[channel]
        torch.testing.assert_close(prepared[:, channel].double(), expected)
    torch.testing.assert_close(CARD.prepare(images.double() / 255), prepared)


def test_prepare_refuses_another_shape() -> None:
    with pytest.raises(SubnetSearchError, match=r"\(1, 4, 5\), the network 'a:b' expects \(3, 4, 5\)"):
        CARD.prepare(torch.zeros(2, 1, 4, 5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_shape": []}, "input_shape is"),
        ({"input_shape": [3, 0, 5]}, r"input_shape is \(3, 0, 5\), expected positive"),
        ({"input_shape": [3, 4.5, 5]}, "input_shape is .* expected a list of int"),
        ({"classes": ["cat"]}, "at least two distinct names"),
        ({"classes": ["cat", "cat"]}, "at least two distinct names"),
        ({"classes": "catdog"}, "classes is 'catdog', expected a list of str"),
        ({"mean": [0.0, 0.0]}, "mean has 2 values, expected 1 or 3"),
        ({"mean": [float("nan")]}, "mean is .* expected finite"),
        ({"std": [0.0]}, "std is .* expected positive"),
        ({"std": [True]}, "std is .* expected a list of float"),
        ({"name": 3}, "name is 3, expected a string"),
        ({"arguments": {"width": [1]}}, "arguments are .* expected a mapping"),
        ({"arguments": [["width", 1]]}, "arguments are .* expected a mapping"),
        ({"extra": 1}, "expected a mapping with exactly the keys"),
    ],
)
def test_refuses_bad_content(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        Card.from_dict({**CARD.to_dict(), **change})


def test_refuses_what_is_no_mapping() -> None:
    with pytest.raises(SubnetSearchError, match=r"manifest\.json: found list, expected a mapping"):
        Card.from_dict([], "manifest.json")
