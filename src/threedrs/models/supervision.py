"""3D representation supervision, the method of 3DRS (section 3.3).

A projection head takes the language model's hidden states at the visual tokens to the teacher's
channels; the loss pulls them, token by token, towards the frozen teacher's features.
"""

from torch import Tensor, nn

from threedrs.errors import DataError
from threedrs.models.settings import SupervisionSettings


def projection_head(channels: int, teacher_channels: int) -> nn.Sequential:
    """Return the head: Linear(D,2D), exact GELU, Linear(2D,C)."""
    return nn.Sequential(
        nn.Linear(channels, 2 * channels),
        nn.GELU(),
        nn.Linear(2 * channels, teacher_channels),
    )


def supervision_loss(
    predicted_VGGC: Tensor, teacher_VGGC: Tensor, settings: SupervisionSettings, scene: str
) -> Tensor:
    """Return the loss () of projected hidden states against teacher features, both normalised.

    ``l2``: mean over tokens of the squared distance (2 - 2 cos); ``cosine``: mean of 1 - cos;
    ``both``: their sum. Computed in float32; the weight is not applied. A teacher value that is
    not finite makes the loss so; the reader of packs refuses it before, where no GPU has to wait.

    Raises:
        DataError: the channels differ.
    """
    if predicted_VGGC.shape != teacher_VGGC.shape:
        raise DataError(
            f"{scene}: teacher features of shape {tuple(teacher_VGGC.shape)} do not fit the "
            f"student's {tuple(predicted_VGGC.shape)}; extract the features of this run's teacher"
        )
    predicted_VGGC = nn.functional.normalize(predicted_VGGC.float(), dim=-1)
    teacher_VGGC = nn.functional.normalize(teacher_VGGC.float(), dim=-1)
    distance = (predicted_VGGC - teacher_VGGC).square().sum(-1).mean()
    cosine = (1 - (predicted_VGGC * teacher_VGGC).sum(-1)).mean()
    return {"l2": distance, "cosine": cosine, "both": distance + cosine}[settings.loss]
