"""Several samples of one scene in one sequence: shared prefix once, then every sample's suffix.

The language model is causal, so the prefix does not depend on the suffixes; a suffix token attends
to the prefix and to its own suffix only, and its position continues from the prefix. Losses and
gradients equal the sum over separate sequences, for nearly the cost of one. Two details make it
exact: the last shared token predicts the first own token of every sample, and labelled tokens in
the shared part count in every text sample's mean, with that sample's own denominator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from threedrs.models.samples import IGNORE, Pack, Prefix, Sample, SceneInputs

__all__ = ["Layout", "Pack", "PackLosses", "Prefix", "Sample", "SceneInputs", "TextTargets"]


class PackLosses(NamedTuple):
    """The losses of a pack of K samples, float32; a tuple, so that DeepSpeed sees the tensors.

    ``text_K``: mean over the sample's own label tokens, 0 for grounding samples; ``grounding_K``:
    InfoNCE, 0 for text samples; ``supervision`` (): the 3D loss of the scene, the same for each
    sample, 0 without a teacher; ``counts``: samples, tokens of the packed sequence, shared prefix
    tokens, and predictions in the text losses (shared ones once a sample).
    """

    text_K: Tensor
    grounding_K: Tensor
    supervision: Tensor
    counts: dict[str, int]

    def total(self, weight: float) -> Tensor:
        """Return the sum () over samples of text or grounding loss + ``weight`` x 3D loss."""
        return (self.text_K + self.grounding_K + weight * self.supervision).sum()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where everything stands in a packed sequence of T tokens; S of them are suffix tokens."""

    prefix_length: int
    lengths: tuple[int, ...]

    @property
    def starts(self) -> tuple[int, ...]:
        """The index in the sequence of each suffix's first token."""
        starts, position = [], self.prefix_length
        for length in self.lengths:
            starts.append(position)
            position += length
        return tuple(starts)

    def position_ids(self, device: torch.device) -> Tensor:
        """The position (1,T) of each token; every suffix continues from the prefix length."""
        parts = [torch.arange(self.prefix_length, device=device)]
        parts += [
            torch.arange(self.prefix_length, self.prefix_length + length, device=device)
            for length in self.lengths
        ]
        return torch.cat(parts)[None]

    def suffix_mask(self, device: torch.device) -> Tensor | None:
        """What suffix tokens attend to, (1,1,S,T) bool; None for one sample: plain causal."""
        if len(self.lengths) == 1:
            return None
        lengths = torch.tensor(self.lengths, device=device)
        owner_S = torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths)
        same_SS = owner_S[:, None] == owner_S
        own_SS = same_SS.tril()
        prefix_SL = own_SS.new_ones(len(owner_S), self.prefix_length)
        return torch.cat([prefix_SL, own_SS], dim=1)[None, None]


@dataclass(frozen=True, kw_only=True)
class TextTargets:
    """The M predictions of a pack that have a text loss.

    ``predictor_M`` is the place, in the sequence, of the hidden state that predicts ``target_M``;
    ``weights_KM`` takes the M losses to the mean of each sample, zero rows for grounding samples.
    At least one prediction is listed, if need be with weight zero, so that the vocabulary head
    runs in every step.
    """

    predictor_M: Tensor
    target_M: Tensor
    weights_KM: Tensor
    labels: int

    @classmethod
    def of(cls, pack: Pack, layout: Layout, device: torch.device) -> "TextTargets":
        """Collect the targets of a pack."""
        prefix, visual = pack.samples[0].prefix, pack.scene.visual_tokens
        shared = _shifted([*prefix.before_labels, *[IGNORE] * visual, *prefix.after_labels])
        predictor, target = [index for index, _ in shared], [label for _, label in shared]
        owned: list[range] = []
        for start, sample in zip(layout.starts, pack.samples, strict=True):
            first = len(predictor)
            if sample.target_rows is None:
                for offset, label in enumerate(sample.labels.tolist()):
                    if label != IGNORE:
                        # The last shared token predicts the first own token of every sample.
                        place = start + offset - 1 if offset else layout.prefix_length - 1
                        predictor.append(place)
                        target.append(label)
            owned.append(range(first, len(predictor)))
        if not predictor:
            predictor, target = [layout.prefix_length - 1], [0]
        weights_KM = torch.zeros(len(pack.samples), len(predictor))
        labels = 0
        for sample, rows, own in zip(pack.samples, weights_KM, owned, strict=True):
            count = len(shared) + len(own)
            if sample.target_rows is None:
                assert own, "a text sample has labelled tokens of its own"
                rows[: len(shared)] = 1 / count
                rows[own.start : own.stop] = 1 / count
                labels += count
        return cls(
            predictor_M=torch.tensor(predictor, device=device),
            target_M=torch.tensor(target, device=device),
            weights_KM=weights_KM.to(device),
            labels=labels,
        )


def _shifted(labels: Sequence[int]) -> list[tuple[int, int]]:
    """The (predicting place, label) pairs of a sequence's labelled tokens; the first has none."""
    return [(place - 1, label) for place, label in enumerate(labels) if place and label != IGNORE]
