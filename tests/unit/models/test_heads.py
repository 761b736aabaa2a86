"""Both 3D heads and their losses, against loops and by hand."""

import math

import pytest
import torch

from fixtures.students import scene
from threedrs.config.schema import SupervisionSettings
from threedrs.errors import ConfigError, DataError
from threedrs.models.heads import (
    GroundingHead,
    info_nce,
    object_features,
    projection_head,
    supervision_loss,
)


def test_object_features_equal_loops() -> None:
    random = torch.Generator().manual_seed(0)
    frames, objects, channels = 2, 3, 5
    visual = torch.rand(frames, 27, 27, channels, generator=random)
    hidden = torch.rand(frames, 14, 14, channels, generator=random)
    position = torch.rand(objects, channels, generator=random)
    fine = torch.rand(objects, frames, 27, 27, generator=random) > 0.95
    coarse = torch.rand(objects, frames, 14, 14, generator=random) > 0.9
    fine[1], coarse[2] = False, False  # an object that no fine or no coarse patch sees

    result = object_features(visual, hidden, position, fine, coarse)

    for number in range(objects):
        seen_a = [
            visual[v, r, c]
            for v in range(frames)
            for r in range(27)
            for c in range(27)
            if fine[number, v, r, c]
        ]
        seen_b = [
            hidden[v, r, c]
            for v in range(frames)
            for r in range(14)
            for c in range(14)
            if coarse[number, v, r, c]
        ]
        nothing = torch.zeros(channels)
        feature_a = (sum(seen_a) / len(seen_a) if seen_a else nothing) + position[number]
        feature_b = sum(seen_b) / len(seen_b) if seen_b else nothing
        torch.testing.assert_close(result[number], (feature_a + feature_b) / 2)


def test_head_equals_its_definition() -> None:
    torch.manual_seed(0)
    head = GroundingHead(6)
    objects, queries = torch.randn(3, 6), torch.randn(2, 6)

    def branch(layers: torch.nn.Sequential, x: torch.Tensor) -> torch.Tensor:
        first, norm, last = layers[0], layers[2], layers[3]
        x = (first.weight @ x + first.bias).clamp(min=0)
        x = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt() * norm.weight + norm.bias
        return last.weight @ x + last.bias

    scores = head(objects, queries)
    assert scores.shape == (2, 4)
    for q in range(2):
        for o, row in enumerate([*objects, head.zero_target]):
            a, b = branch(head.obj, row), branch(head.query, queries[q])
            cosine = (a @ b) / (a.norm() * b.norm())
            torch.testing.assert_close(scores[q, o], cosine)


def test_parameter_names_follow_published_ones() -> None:
    names = {name for name, _ in GroundingHead(4).named_parameters()}
    layers = [
        f"{side}.{i}.{p}"
        for side in ("obj", "query")
        for i in (0, 2, 3)
        for p in ("weight", "bias")
    ]
    assert names == {"zero_target", *layers}


def test_head_without_objects_scores_the_zero_target() -> None:
    assert GroundingHead(4)(torch.zeros(0, 4), torch.randn(2, 4)).shape == (2, 1)


def test_info_nce_equals_the_formula() -> None:
    scores = [[0.3, -0.2, 0.9, 0.1], [0.8, 0.7, -0.4, 0.0], [-0.9, 0.2, 0.2, 0.5]]
    rows_of_query = [[1], [0, 2], [3]]
    target_KM = torch.tensor([[row in rows for row in range(4)] for rows in rows_of_query])
    expected = []
    for row, rows in zip(scores, rows_of_query, strict=True):
        weights = [math.exp(score / 0.07) for score in row]
        expected.append(-math.log(sum(weights[row] for row in rows) / sum(weights)))
    found = info_nce(torch.tensor(scores), target_KM).tolist()
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_info_nce_by_hand() -> None:
    # Three equal scores: each row has probability 1/3.
    target_KM = torch.tensor([[True, False, False], [True, True, False]])
    assert info_nce(torch.zeros(2, 3), target_KM).tolist() == pytest.approx(
        [math.log(3), math.log(1.5)]
    )


def test_gradient_of_info_nce_is_finite_where_rows_are_no_targets() -> None:
    scores_KM = torch.tensor([[0.9, -0.9, 0.1]], requires_grad=True)
    info_nce(scores_KM, torch.tensor([[False, False, True]])).sum().backward()
    probability = torch.softmax(torch.tensor([0.9, -0.9, 0.1]) / 0.07, 0)
    expected = (probability - torch.tensor([0.0, 0.0, 1.0])) / 0.07
    torch.testing.assert_close(scores_KM.grad, expected[None])


def _slow(predicted: torch.Tensor, teacher: torch.Tensor) -> tuple[float, float]:
    distances, cosines = [], []
    for p, t in zip(predicted.flatten(0, 2), teacher.float().flatten(0, 2), strict=True):
        p, t = p / p.norm(), t / t.norm()
        distances.append(float(((p - t) ** 2).sum()))
        cosines.append(1 - float(p @ t))
    return sum(distances) / len(distances), sum(cosines) / len(cosines)


def test_losses_equal_loops() -> None:
    teacher = scene(frames=1).teacher_VGGC
    assert teacher is not None
    predicted = torch.randn(teacher.shape, generator=torch.Generator().manual_seed(1))
    distance, cosine = _slow(predicted, teacher)
    losses = {
        loss: supervision_loss(predicted, teacher, SupervisionSettings(loss=loss), "s").item()
        for loss in ("l2", "cosine", "both")
    }
    assert losses["l2"] == pytest.approx(distance, rel=1e-5)
    assert losses["cosine"] == pytest.approx(cosine, rel=1e-5)
    assert losses["both"] == pytest.approx(distance + cosine, rel=1e-5)
    assert losses["l2"] == pytest.approx(2 * losses["cosine"], rel=1e-5)  # 2 - 2 cos


def test_aligned_features_cost_nothing_whatever_their_length() -> None:
    teacher = torch.rand(1, 14, 14, 8) + 0.1
    loss = supervision_loss(teacher * 3, teacher, SupervisionSettings(), "s")
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert supervision_loss(-teacher, teacher, SupervisionSettings(), "s").item() == pytest.approx(
        4
    )


def test_head_shape() -> None:
    head = projection_head(6, 9)
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    expected = {"0.weight": (12, 6), "0.bias": (12,), "2.weight": (9, 12), "2.bias": (9,)}
    assert shapes == expected
    assert head[1].approximate == "none"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_teacher_values_that_are_not_finite_show_in_the_loss(value: float) -> None:
    teacher = torch.ones(1, 14, 14, 4, dtype=torch.float16)
    teacher[0, 3, 3, 1] = value
    loss = supervision_loss(torch.ones(1, 14, 14, 4), teacher, SupervisionSettings(), "s")
    assert not loss.isfinite()


def test_another_teachers_features_are_an_error() -> None:
    with pytest.raises(DataError, match=r"\(1, 14, 14, 5\) do not fit"):
        supervision_loss(
            torch.ones(1, 14, 14, 4), torch.ones(1, 14, 14, 5), SupervisionSettings(), "s"
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "l1"}, "choose one of: l2, cosine, both"),
        ({"weight": -1.0}, "supervision.weight"),
        ({"weight": float("nan")}, "supervision.weight"),
        ({"layer": "first"}, "valid: last, or a layer index"),
        ({"layer": -1}, "valid: last, or a layer index"),
    ],
)
def test_bad_settings(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SupervisionSettings(**values)  # type: ignore[arg-type]
