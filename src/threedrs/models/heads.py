"""The two 3D heads with their losses: grounding, and the 3D representation supervision of 3DRS.

Grounding (3DRS, section 3.1) asks which boxes a description means: it scores each object, and a
learned "no object" row, against the hidden state at ``<ground>``. Supervision (section 3.3) takes
the hidden states at the visual tokens to the teacher's channels, and its loss pulls them, token by
token, towards the frozen teacher's features.
"""

import torch
from torch import Tensor, nn

from threedrs.config.schema import SupervisionSettings
from threedrs.errors import DataError

TEMPERATURE = 0.07


def masked_mean(mask_NT: Tensor, tokens_TD: Tensor) -> Tensor:
    """Return the mean (N,D) of the tokens that each row of the bool mask selects, or zeros."""
    # The count is mantissa x 2^exponent. Half precision can hold neither the count of a large
    # object's tokens nor their sum, but the sum over a power of two, which rounds nothing.
    mantissa, exponent = torch.frexp(mask_NT.sum(1, keepdim=True).clamp(min=1).float())
    shares_NT = torch.ldexp(mask_NT.float(), -exponent).to(tokens_TD.dtype)
    mean_ND = (shares_NT @ tokens_TD).float() / mantissa
    return mean_ND.to(tokens_TD.dtype)


def object_features(
    visual_VFFD: Tensor,
    hidden_VGGD: Tensor,
    position_ND: Tensor,
    fine_NVFF: Tensor,
    coarse_NVGG: Tensor,
) -> Tensor:
    """Return the object features (N,D): the mean of features A and B.

    ``visual_VFFD`` are the projected tokens before pooling, without position embedding, and
    ``hidden_VGGD`` the last hidden states at the visual tokens, newline columns dropped. The bool
    masks mark the patches that see an object. ``position_ND`` embeds the centres of the boxes.
    """
    # Two masks, since the fine patches are half as wide: each has its own share of pixels to reach.
    feature_a = masked_mean(fine_NVFF.flatten(1), visual_VFFD.flatten(0, 2)) + position_ND
    return (feature_a + masked_mean(coarse_NVGG.flatten(1), hidden_VGGD.flatten(0, 2))) / 2


def _branch(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, channels),
        nn.ReLU(),
        nn.LayerNorm(channels, eps=1e-5),
        nn.Linear(channels, channels),
    )


class GroundingHead(nn.Module):
    """Two small networks whose outputs' cosine scores objects against queries."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.obj = _branch(channels)
        self.query = _branch(channels)
        self.zero_target = nn.Parameter(torch.randn(channels))

    def forward(self, objects_ND: Tensor, queries_KD: Tensor) -> Tensor:
        """Return cosine scores (K,N+1) float32, those of the zero target in the last column."""
        rows_MD = torch.cat([objects_ND, self.zero_target[None].to(objects_ND.dtype)])
        rows_MD = nn.functional.normalize(self.obj(rows_MD).float(), dim=-1)
        queries_KD = nn.functional.normalize(self.query(queries_KD).float(), dim=-1)
        return queries_KD @ rows_MD.T


def info_nce(scores_KM: Tensor, target_KM: Tensor) -> Tensor:
    """Return the InfoNCE loss (K,) of each query's scores, given its target rows (bool).

    -log( sum over target rows of exp(s / 0.07) / sum over all rows of exp(s / 0.07) )
    """
    logits_KM = scores_KM / TEMPERATURE
    targets_KM = logits_KM.masked_fill(~target_KM, -torch.inf)
    return torch.logsumexp(logits_KM, 1) - torch.logsumexp(targets_KM, 1)


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

    With ``l2`` it is the mean over tokens of the squared distance (2 - 2 cos), with ``cosine`` the
    mean of 1 - cos, with ``both`` their sum. The weight is not applied.

    Raises:
        DataError: the channels differ.
    """
    if predicted_VGGC.shape != teacher_VGGC.shape:
        raise DataError(
            f"{scene}: teacher features of shape {tuple(teacher_VGGC.shape)} do not fit the "
            f"student's {tuple(predicted_VGGC.shape)}; extract the features of this run's teacher"
        )
    # A teacher value that is not finite would make the loss so. The reader of packs refuses it
    # before: a check here would have the host wait for the GPU in every step.
    # In float32, since bfloat16 has 8 bits for a distance that training takes from 2 towards 0.
    predicted_VGGC = nn.functional.normalize(predicted_VGGC.float(), dim=-1)
    teacher_VGGC = nn.functional.normalize(teacher_VGGC.float(), dim=-1)
    distance = (predicted_VGGC - teacher_VGGC).square().sum(-1).mean()
    cosine = (1 - (predicted_VGGC * teacher_VGGC).sum(-1)).mean()
    return {"l2": distance, "cosine": cosine, "both": distance + cosine}[settings.loss]
