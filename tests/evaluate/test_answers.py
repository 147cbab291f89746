import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from subnet_search.ensemble.uncertainty import decompose
from subnet_search.errors import SubnetSearchError
from subnet_search.evaluate import Answers, Outputs, answers_of
from subnet_search.evaluate.answers import from_tensors


def made_up(members: int, samples: int, classes: int, seed: int = 0) -> Outputs:
    draw = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(members, samples, classes, generator=draw)
    return Outputs(logits.softmax(dim=2), torch.randint(-1, classes, (samples,), generator=draw))


@given(st.integers(1, 4), st.integers(1, 6), st.integers(2, 5), st.integers(0, 99))
def test_they_are_what_the_probabilities_say(members, samples, classes, seed) -> None:
    outputs = made_up(members, samples, classes, seed)
    answers, parts = answers_of(outputs), decompose(outputs.member_probabilities)
    mean = parts.probabilities
    assert answers.classes.shape == (samples, min(3, classes))
    for i in range(samples):
        ranked = sorted(range(classes), key=lambda c: -float(mean[i, c]))[:3]
        assert answers.classes[i].tolist() == ranked
        assert answers.probabilities[i].tolist() == pytest.approx([float(mean[i, c]) for c in ranked])
        label = int(outputs.labels[i])
        assert float(answers.truth[i]) == (0.0 if label < 0 else pytest.approx(float(mean[i, label])))
    assert torch.equal(answers.errors, mean.argmax(dim=1) != outputs.labels)
    assert torch.equal(answers.member_errors, outputs.member_probabilities.argmax(dim=2) != outputs.labels)
    torch.testing.assert_close(answers.total, parts.total.float())
    torch.testing.assert_close(answers.confidence, parts.max_probability.float())


def test_of_equal_probabilities_the_first_class_is_taken_as_for_the_accuracy() -> None:
    probabilities = torch.tensor([[[0.1, 0.3, 0.3, 0.3], [0.25, 0.25, 0.25, 0.25]]])
    answers = answers_of(Outputs(probabilities, torch.tensor([1, 0])))
    assert answers.classes[:, 0].tolist() == [1, 0]
    assert all(len(set(row)) == 3 for row in answers.classes.tolist())
    assert not answers.errors.any()


def test_they_come_back_from_their_parts() -> None:
    answers = answers_of(made_up(3, 5, 4))
    back = from_tensors(answers.tensors())
    assert all(torch.equal(part, back.tensors()[name]) for name, part in answers.tensors().items())


def test_parts_that_do_not_belong_together_are_refused() -> None:
    parts = answers_of(made_up(3, 5, 4)).tensors()
    with pytest.raises(SubnetSearchError, match=r"found the parts .* expected"):
        from_tensors({name: part for name, part in parts.items() if name != "votes"})
    for name, part in parts.items():
        with pytest.raises(SubnetSearchError, match="do not belong together"):
            Answers(**{**parts, name: part[:, :-1] if name == "votes" else part[:-1]})
