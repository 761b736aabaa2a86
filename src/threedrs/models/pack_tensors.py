"""A training pack as tensors, and the same with sizes rounded up so that few of them are met.

A pass over the tensors looks at nothing else of a pack, and asks the device for nothing. So it can
be recorded (`threedrs.training.recorded_passes`), and passes of one size differ in numbers alone.
What is added changes no loss and no gradient, but for rounding: own tokens that no other attends
to and nobody reads, predictions and samples of weight zero, and objects that no score counts.

Axis letters: T tokens, S own tokens of samples, P points, M predictions, K samples, N objects.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from threedrs.models.backbones.family import Family
from threedrs.models.packing import (
    GroundingTargets,
    Layout,
    Pack,
    TextTargets,
    coordinates,
    on_device,
)
from threedrs.models.scene_inputs import SceneInputs, with_tensors

OWN_TOKENS = 256  # own tokens are a multiple of this, and of a sixteenth of the next power of two
PREDICTIONS = 256  # the fewest
OBJECTS = 32  # the fewest


def power_of_two(number: int, least: int) -> int:
    """Return the least power of two that is neither below ``number`` nor below ``least``."""
    return max(least, 1 << (number - 1).bit_length())


def rounded_own(tokens: int) -> int:
    """Return the own tokens that a pack of ``tokens`` is given."""
    unit = max(OWN_TOKENS, 2 ** (tokens.bit_length() - 4))
    return -(-tokens // unit) * unit


@dataclass(frozen=True, kw_only=True)
class PackTensors:
    """What a pass reads of a pack; ``before`` to ``predictions`` are the host's."""

    scene: SceneInputs
    before: int  # shared tokens in front of the visual ones
    prefix_length: int
    predictions: int  # of the vocabulary head, without those of weight zero that were added
    ids_T: Tensor  # of the text tokens
    position_ids: Tensor  # (1,T) or (3,1,T), of all tokens
    owner_S: Tensor | None  # the sample that each own token is of; None: all of one sample
    index_P: Tensor  # the ``<coord>`` tokens among the text tokens
    points_P3: Tensor  # what they stand for, metres, world frame
    text: TextTargets
    grounding: GroundingTargets
    counted_K: Tensor  # float32, 1 for a sample, 0 for one that was added

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

    def rounded(self, samples: int) -> "PackTensors":
        """Return the tensors with all sizes rounded up, and room for so many samples."""
        tokens = self.position_ids.shape[-1]
        own = tokens - self.prefix_length
        # At least one is added: the points that are added have to stand somewhere.
        own_added = rounded_own(own + 1) - own
        added, points_added = samples - len(self.counted_K), samples - len(self.index_P)
        owner_S = self.owner_S
        if owner_S is None:
            owner_S = self.ids_T.new_zeros(own)
        last = len(self.ids_T) + own_added - 1
        return replace(
            self,
            scene=_with_objects(self.scene, power_of_two(len(self.scene.boxes_N6), OBJECTS)),
            ids_T=pad(self.ids_T, (0, own_added)),
            position_ids=pad(self.position_ids, (0, own_added)),
            # The added ones are one more sample.
            owner_S=pad(owner_S, (0, own_added), value=len(self.counted_K)),
            index_P=pad(self.index_P, (0, points_added), value=last),
            points_P3=pad(self.points_P3, (0, 0, 0, points_added)),
            text=_more_predictions(self.text, added),
            grounding=_more_rows(self.grounding, added),
            counted_K=pad(self.counted_K, (0, added)),
        )


def _with_objects(scene: SceneInputs, objects: int) -> SceneInputs:
    """Return the scene with objects added that no patch sees."""
    added = objects - len(scene.boxes_N6)
    return replace(
        scene,
        boxes_N6=pad(scene.boxes_N6, (0, 0, 0, added)),
        fine_NVFF=pad(scene.fine_NVFF, (0, 0) * 3 + (0, added)),
        coarse_NVGG=pad(scene.coarse_NVGG, (0, 0) * 3 + (0, added)),
    )


def _more_predictions(targets: TextTargets, samples: int) -> TextTargets:
    """Return the targets with ``samples`` more, and predictions rounded up, of weight zero."""
    added = power_of_two(len(targets.target_M), PREDICTIONS) - len(targets.target_M)
    return TextTargets(
        # Each by another token: a GPU adds up the gradients of those that share one in turn.
        predictor_M=torch.cat([targets.predictor_M, torch.arange(added)]),
        target_M=pad(targets.target_M, (0, added)),
        weights_KM=pad(targets.weights_KM, (0, added, 0, samples)),
    )


def _more_rows(targets: GroundingTargets, samples: int) -> GroundingTargets:
    """Return the targets with ``samples`` more, of weight zero, and objects rounded up."""
    objects = targets.target_KM.shape[1] - 1
    added = power_of_two(objects, OBJECTS) - objects
    # The added objects come before the zero target, which stays the last row.
    target_KM = pad(targets.target_KM[:, :-1], (0, added))
    target_KM = torch.cat([target_KM, targets.target_KM[:, -1:]], 1)
    target_KM = pad(target_KM, (0, 0, 0, samples))
    target_KM[len(targets.weight_K) :, -1] = True  # no softmax over nothing
    return GroundingTargets(
        index_K=torch.cat([targets.index_K, torch.arange(samples)]),
        target_KM=target_KM,
        known_M=pad(pad(targets.known_M[:-1], (0, added)), (0, 1), value=True),
        weight_K=pad(targets.weight_K, (0, samples)),
    )
