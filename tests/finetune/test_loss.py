import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subnet_search.finetune import FinetuneConfig
from subnet_search.finetune.loss import ensemble_cross_entropy, loss_of, residual_correlation

LOGITS = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[-1.0, 1.0], [3.0, 0.0]]])  # [member, row, class]
LABELS = torch.tensor([[0, 1], [0, 0]])
TEACHER = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[0.0, 0.0], [1.0, -1.0]]])


def softmax(pair, temperature=1.0):
    exponents = [math.exp(float(value) / temperature) for value in pair]
    return [e / sum(exponents) for e in exponents]


def rows():
    return [(k, b) for k in range(2) for b in range(2)]


def test_cross_entropy_is_the_mean_over_members_and_rows():
    wanted = sum(-math.log(softmax(LOGITS[k, b])[LABELS[k, b]]) for k, b in rows()) / 4
    assert float(loss_of(LOGITS, LABELS, None, FinetuneConfig())) == pytest.approx(wanted, rel=1e-5)


def test_distillation_by_hand():
    warm, share = 3.0, 0.25
    task = sum(-math.log(softmax(LOGITS[k, b])[LABELS[k, b]]) for k, b in rows()) / 4
    divergence = 0.0
    for k, b in rows():
        p, q = softmax(TEACHER[k, b], warm), softmax(LOGITS[k, b], warm)
        divergence += sum(pi * math.log(pi / qi) for pi, qi in zip(p, q, strict=True)) / 4
    wanted = (1 - share) * task + share * warm**2 * divergence
    got = loss_of(LOGITS, LABELS, TEACHER, FinetuneConfig(distill=share, temperature=warm))
    assert float(got) == pytest.approx(wanted, rel=1e-5)


def test_a_member_that_answers_as_its_teacher_has_nothing_to_learn_from_it():
    assert float(loss_of(LOGITS, LABELS, LOGITS, FinetuneConfig(distill=1.0))) == pytest.approx(0.0, abs=1e-6)


def test_the_cross_entropy_of_the_mean_answer_by_hand():
    labels = LABELS[:1].expand_as(LABELS)
    own = loss_of(LOGITS, labels, None, FinetuneConfig(mode="repeat"))
    mean = [
        [sum(column) / 2 for column in zip(*(softmax(LOGITS[k, b]) for k in range(2)), strict=True)] for b in (0, 1)
    ]
    wanted = sum(-math.log(mean[b][labels[0, b]]) for b in (0, 1)) / 2
    torch.testing.assert_close(float(ensemble_cross_entropy(LOGITS, labels)), wanted, rtol=1e-5, atol=0)
    blended = loss_of(LOGITS, labels, None, FinetuneConfig(mode="repeat", joint=0.25))
    torch.testing.assert_close(float(blended), 0.75 * float(own) + 0.25 * wanted, rtol=1e-5, atol=0)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), members=st.integers(1, 4), scale=st.sampled_from([0.0, 1.0, 50.0]))
def test_an_ensemble_is_no_worse_than_its_members_are_on_average(seed, members, scale):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(members, 5, 3, generator=generator) * scale
    labels = torch.randint(0, 3, (5,), generator=generator).repeat(members, 1)
    own = float(loss_of(logits, labels, None, FinetuneConfig(mode="repeat")))
    assert float(ensemble_cross_entropy(logits, labels)) <= own * (1 + 1e-5) + 1e-6
    same = logits[:1].repeat(3, 1, 1)  # members that answer alike have no diversity
    alone = float(loss_of(same[:1], labels[:1], None, FinetuneConfig()))
    assert float(ensemble_cross_entropy(same, labels[:1].repeat(3, 1))) == pytest.approx(alone, rel=1e-5, abs=1e-6)


def test_decorrelation_is_added_with_its_weight():
    labels = LABELS[:1].repeat(2, 1)
    plain = loss_of(LOGITS, labels, None, FinetuneConfig(mode="repeat"))
    settings = FinetuneConfig(mode="repeat", decorrelate=0.5)
    more = loss_of(LOGITS, labels, None, settings)
    torch.testing.assert_close(more, plain + 0.5 * residual_correlation(LOGITS, torch.eye(2)[labels[0]]))
    answers, targets = torch.randn(2, 3, 2), torch.tensor([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]])
    elsewhere = loss_of(LOGITS, labels, None, settings, (answers, targets))
    torch.testing.assert_close(elsewhere, plain + 0.5 * residual_correlation(answers, targets))


def test_other_images_are_learned_with_their_targets():
    labels = LABELS[:1].repeat(2, 1)
    plain = loss_of(LOGITS, labels, None, FinetuneConfig(mode="repeat"))
    settings = FinetuneConfig(mode="repeat", learn_probes=0.5, probes="mixed")
    answers, targets = torch.randn(2, 3, 2), torch.tensor([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]])
    missed = -(targets * answers.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(loss_of(LOGITS, labels, None, settings, (answers, targets)), plain + 0.5 * missed)


def test_the_loss_of_half_precision_logits_is_computed_in_full():
    got = loss_of(LOGITS.bfloat16(), LABELS, TEACHER.bfloat16(), FinetuneConfig(distill=0.5))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, loss_of(LOGITS, LABELS, TEACHER, FinetuneConfig(distill=0.5)))


def test_residual_correlation_is_pearsons_over_pairs():
    torch.manual_seed(3)
    logits, targets = torch.randn(3, 7, 4), torch.rand(7, 4).softmax(-1)
    residual = (logits.softmax(-1) - targets).flatten(1)
    matrix = torch.corrcoef(residual)
    wanted = (matrix[0, 1] + matrix[0, 2] + matrix[1, 2]) / 3
    torch.testing.assert_close(residual_correlation(logits, targets), wanted)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    members=st.integers(2, 4),
    count=st.integers(1, 5),
    scale=st.sampled_from([0.0, 1.0, 50.0]),
)
def test_residual_correlation_is_within_its_range(seed, members, count, scale):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(members, count, 3, generator=generator) * scale
    targets = torch.eye(3)[torch.randint(0, 3, (count,), generator=generator)]
    assert -1 - 1e-5 <= float(residual_correlation(logits, targets)) <= 1 + 1e-5


def test_closed_forms_of_the_correlation():
    same = LOGITS[:1].repeat(3, 1, 1)
    targets = torch.eye(2)[LABELS[0]]
    assert float(residual_correlation(same, targets)) == pytest.approx(1.0)
    assert float(residual_correlation(LOGITS[:1], targets)) == 0.0  # one member has no pair
    # two classes, one image, both alike as target: residuals (a, −a) and (−b, b) point opposite ways
    opposite = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    assert float(residual_correlation(opposite, torch.tensor([[0.5, 0.5]]))) == pytest.approx(-1.0)


def test_a_member_without_any_error_does_not_break_the_gradient():
    logits = torch.tensor([[[500.0, 0.0]], [[1.0, 0.0]]], requires_grad=True)
    residual_correlation(logits, torch.tensor([[1.0, 0.0]])).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
