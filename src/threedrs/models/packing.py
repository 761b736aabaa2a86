"""Samples, and several of one scene in one sequence: the shared prefix once, then every suffix.

The language model is causal, so the prefix does not depend on the suffixes. A suffix token attends
to the prefix and to its own suffix only, and its position continues from the prefix. Losses and
gradients equal the sum over separate sequences, for nearly the cost of one.

Axis letters: T tokens of a sequence, S suffix tokens, K samples, M predictions with a loss, P
points that stand in texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from threedrs.models.backbones.family import Family
from threedrs.models.scene_inputs import SceneInputs, with_tensors

IGNORE = -100  # label of a token without loss, the convention of torch's cross entropy


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """The tokens that all samples of a scene share, around the visual tokens."""

    before_ids: tuple[int, ...]
    after_ids: tuple[int, ...]
    labelled: frozenset[int]  # the ids among them that have a text loss, of chat tokens

    def length(self, visual_tokens: int) -> int:
        """The number of shared tokens, the visual ones included."""
        return len(self.before_ids) + visual_tokens + len(self.after_ids)

    def labels(self, visual_tokens: int) -> list[int]:
        """Return the label of each shared token; no visual token is to be predicted."""
        ids = [*self.before_ids, *[IGNORE] * visual_tokens, *self.after_ids]
        return [token if token in self.labelled else IGNORE for token in ids]


@dataclass(frozen=True, kw_only=True)
class Query:
    """An evaluation question: its own tokens up to and including the assistant's header."""

    id: str  # of the record
    input_ids: np.ndarray  # (T,) int64, on the host
    prefix: Prefix  # the tokens before them
    # Index of ``<coord>`` in ``input_ids`` and the point that it stands for, (3,) float32, metres,
    # world frame, on the host; None without that token.
    coordinate: tuple[int, np.ndarray] | None


@dataclass(frozen=True, kw_only=True)
class Sample(Query):
    """A training sample: a question with its answer, up to the end of the assistant's turn."""

    labels: np.ndarray  # (T,) int64, not shifted, -100 without loss
    # Of a grounding sample: the rows of the scene's boxes that the text means, [] for the zero
    # target, and where ``<ground>`` stands.
    target_rows: list[int] | None
    ground_index: int | None


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Samples of one scene that share its visual tokens and a prefix."""

    scene: SceneInputs
    samples: tuple[Sample, ...]

    def __post_init__(self) -> None:
        assert self.samples, "a pack holds at least one sample"
        assert len({sample.prefix for sample in self.samples}) == 1, "prefixes differ in a pack"

    @property
    def tokens(self) -> int:
        """The length of the packed sequence."""
        own = sum(len(sample.input_ids) for sample in self.samples)
        return self.samples[0].prefix.length(self.scene.visual_tokens) + own

    def to(self, device: torch.device | str) -> "Pack":
        """Return the pack with its scene on ``device``, the samples being small enough to stay."""
        return replace(self, scene=self.scene.to(device))

    def pin_memory(self) -> "Pack":
        """Return the pack with its scene in page-locked memory."""
        return replace(self, scene=self.scene.pin_memory())


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on ``device``; of the host's only small ones should come here."""
    if device.type == "cuda" and values.device.type == "cpu":
        # Only from page-locked memory does the host go on before the copy is done.
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def coordinates(items: Sequence[Query], starts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return where the P ``<coord>`` tokens of ``items`` stand (P,), and their points (P,3).

    The items begin at ``starts``.
    """
    found = [
        (start + item.coordinate[0], item.coordinate[1])
        for item, start in zip(items, starts, strict=True)
        if item.coordinate is not None
    ]
    points = np.array([point for _, point in found], dtype=np.float32).reshape(-1, 3)
    return torch.tensor([index for index, _ in found], dtype=torch.long), torch.from_numpy(points)


class PackLosses(NamedTuple):
    """The losses of a pack of K samples, float32; a tuple, so that DeepSpeed sees the tensors."""

    text_K: Tensor  # mean over the sample's label tokens, 0 for grounding samples
    grounding_K: Tensor  # InfoNCE, 0 for text samples
    # The 3D loss () of the scene, the same for each sample, 0 without a teacher.
    supervision: Tensor
    counted_K: Tensor  # 1 for a sample, 0 for a row that only pads
    predictions: int  # of the vocabulary head, shared ones once

    def total(self, weight: float) -> Tensor:
        """Return the sum () over samples of text or grounding loss + ``weight`` x 3D loss."""
        return (self.text_K + self.grounding_K + weight * self.supervision * self.counted_K).sum()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where everything stands in a packed sequence of T tokens, S of which are suffix tokens."""

    prefix_length: int
    lengths: tuple[int, ...]

    @property
    def starts(self) -> tuple[int, ...]:
        """The index in the sequence of each suffix's first token."""
        return tuple(accumulate(self.lengths[:-1], initial=self.prefix_length))

    @property
    def owner_S(self) -> Tensor:
        """The number (S,) of the suffix that each suffix token belongs to, on the host."""
        return torch.repeat_interleave(torch.arange(len(self.lengths)), torch.tensor(self.lengths))

    def position_ids(self) -> Tensor:
        """Return the position (1,T) of each token in its own sample, on the host."""
        # Every suffix continues from the prefix, as if the suffixes before it were not there.
        ids_T = torch.arange(self.prefix_length + sum(self.lengths))
        skipped_K = torch.tensor(self.starts) - self.prefix_length
        ids_T[self.prefix_length :] -= skipped_K[self.owner_S]
        return ids_T[None]


def suffix_mask(prefix_length: int, owner_S: Tensor) -> Tensor:
    """Return what suffix tokens attend to (1,1,S,T), bool, given the suffix that each is of."""
    # The prefix rows are plain causal too. Left out, they save a mask of prefix x prefix.
    own_SS = (owner_S[:, None] == owner_S).tril()
    return torch.cat([own_SS.new_ones(len(owner_S), prefix_length), own_SS], dim=1)[None, None]


@dataclass(frozen=True, kw_only=True)
class TextTargets:
    """The M predictions of a pack that have a text loss."""

    predictor_M: Tensor  # index in the sequence of the hidden state that predicts ``target_M``
    target_M: Tensor  # token ids
    # Takes the M losses to the mean of each sample, zero rows for grounding samples.
    weights_KM: Tensor

    @classmethod
    def of(cls, pack: Pack, layout: Layout) -> "TextTargets":
        """Collect the targets of a pack, on the host."""
        labels = enumerate(pack.samples[0].prefix.labels(pack.scene.visual_tokens))
        shared = [(index - 1, label) for index, label in labels if index and label != IGNORE]
        last_shared, owner_S = layout.prefix_length - 1, layout.owner_S.numpy()
        # A token is predicted by the one before it. Before the first own token of every sample
        # stands the last shared one, whatever sample comes before it in the pack.
        index_S = last_shared + np.arange(len(owner_S))
        index_S[np.array(layout.starts) - layout.prefix_length] = last_shared
        label_S = np.concatenate([sample.labels for sample in pack.samples])
        text_K = np.array([sample.target_rows is None for sample in pack.samples])
        # A grounding sample has no text loss, whatever of its chat tokens carries a label.
        own = np.flatnonzero((label_S != IGNORE) & text_K[owner_S])
        predictor = [*(index for index, _ in shared), *index_S[own].tolist()]
        target = [*(label for _, label in shared), *label_S[own].tolist()]
        owner_M = owner_S[own]
        own_count_K = np.bincount(owner_M, minlength=len(text_K))
        assert own_count_K[text_K].all(), "a text sample has labelled tokens of its own"
        if not predictor:  # one of weight 0, so that the vocabulary head runs in every step
            predictor, target = [last_shared], [0]
        # Shared labels count in each text sample's mean, by its own denominator, as they would if
        # each sample had a sequence of its own.
        weight_K = torch.from_numpy(text_K / np.maximum(1, len(shared) + own_count_K)).float()
        weights_KM = torch.zeros(len(text_K), len(predictor))
        weights_KM[:, : len(shared)] = weight_K[:, None]
        weights_KM[owner_M, len(shared) + np.arange(len(own))] = weight_K[owner_M]
        return cls(
            predictor_M=torch.tensor(predictor),
            target_M=torch.tensor(target),
            weights_KM=weights_KM,
        )


@dataclass(frozen=True, kw_only=True)
class GroundingTargets:
    """Where the K samples of a pack ask for objects, and which rows of the scores they mean."""

    index_K: Tensor  # index of ``<ground>`` in the sequence
    # Bool, marks the target objects, or without any the zero target, the last row.
    target_KM: Tensor
    known_M: Tensor  # bool, not set where a row only pads the objects
    # 0 for text samples, which take part so that the grounding head runs in every step.
    weight_K: Tensor

    @classmethod
    def of(cls, pack: Pack, layout: Layout) -> "GroundingTargets":
        """Collect the targets of a pack, on the host."""
        objects, last_shared = len(pack.scene.boxes_N6), layout.prefix_length - 1
        # Row ``objects`` is the zero target. Text samples point at it too, with weight 0.
        targets = [sample.target_rows or [objects] for sample in pack.samples]
        target_KM = torch.zeros(len(targets), objects + 1, dtype=torch.bool)
        sample_of_row = np.repeat(np.arange(len(targets)), [len(rows) for rows in targets])
        target_KM[sample_of_row, np.concatenate(targets)] = True
        indices = [
            last_shared if sample.ground_index is None else start + sample.ground_index
            for start, sample in zip(layout.starts, pack.samples, strict=True)
        ]
        weights = [float(sample.target_rows is not None) for sample in pack.samples]
        return cls(
            index_K=torch.tensor(indices),
            target_KM=target_KM,
            known_M=torch.ones(objects + 1, dtype=torch.bool),
            weight_K=torch.tensor(weights),
        )


@dataclass(frozen=True, kw_only=True)
class PackTensors:
    """Everything that a training pass reads of a pack, beside the student's parameters."""

    scene: SceneInputs
    before: int  # shared tokens in front of the visual ones
    prefix_length: int
    predictions: int  # of the vocabulary head, without those that only pad
    ids_T: Tensor  # of the text tokens
    position_ids: Tensor  # (1,T) or (3,1,T), of all tokens
    owner_S: Tensor | None  # the sample that each own token is of; None: all of one sample
    index_P: Tensor  # the ``<coord>`` tokens among the text tokens
    points_P3: Tensor  # what they stand for, metres, world frame
    text: TextTargets
    grounding: GroundingTargets
    counted_K: Tensor  # float32, 1 for a sample, 0 for one that only pads

    @classmethod
    def of(cls, pack: Pack, family: Family) -> "PackTensors":
        """Collect the tensors of a pack, on the host but for those of its scene."""
        scene, samples = pack.scene, pack.samples
        prefix = samples[0].prefix
        before = len(prefix.before_ids)
        layout = Layout(
            prefix_length=prefix.length(scene.visual_tokens),
            lengths=tuple(len(sample.input_ids) for sample in samples),
        )
        shared_ids = np.array([*prefix.before_ids, *prefix.after_ids], dtype=np.int64)
        ids = np.concatenate([shared_ids, *(sample.input_ids for sample in samples)])
        # ``ids`` holds no visual tokens, so a sample begins earlier there than in the sequence.
        starts = [start - scene.visual_tokens for start in layout.starts]
        index_P, points_P3 = coordinates(samples, starts)
        text = TextTargets.of(pack, layout)
        return cls(
            scene=scene,
            before=before,
            prefix_length=layout.prefix_length,
            predictions=len(text.target_M),
            ids_T=torch.from_numpy(ids),
            position_ids=family.position_ids(layout.position_ids(), before, len(scene.rgb_VHWC)),
            owner_S=layout.owner_S if len(samples) > 1 else None,
            index_P=index_P,
            points_P3=points_P3,
            text=text,
            grounding=GroundingTargets.of(pack, layout),
            counted_K=torch.ones(len(samples)),
        )

    def to(self, device: torch.device) -> "PackTensors":
        """Return the tensors on ``device``."""
        return with_tensors(self, lambda tensor: on_device(tensor, device))
