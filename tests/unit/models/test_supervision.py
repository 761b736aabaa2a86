import pytest
import torch

from fixtures.students import scene
from threedrs.errors import ConfigError, DataError
from threedrs.models.heads import projection_head, supervision_loss
from threedrs.models.settings import SupervisionSettings


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
        ({"loss": "l1"}, "valid: l2, cosine, both"),
        ({"weight": -1.0}, "supervision.weight"),
        ({"weight": float("nan")}, "supervision.weight"),
        ({"layer": "first"}, "valid: last, or a layer index"),
        ({"layer": -1}, "valid: last, or a layer index"),
    ],
)
def test_bad_settings(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SupervisionSettings(**values)  # type: ignore[arg-type]
