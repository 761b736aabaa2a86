"""Packs whose sizes are rounded up, so that few sizes are met.

Passes over packs of one size differ in numbers alone, and one recording serves them all
(`threedrs.training.recorded_passes`). What is added changes no loss and no gradient, but for
rounding: own tokens that no other attends to and nobody reads, predictions and samples of weight
zero, and objects that no score counts.

Axis letters: see `threedrs.models.packing`; N objects.
"""

from dataclasses import replace

import torch
from torch.nn.functional import pad

from threedrs.models.packing import GroundingTargets, PackTensors, TextTargets
from threedrs.models.pass_sizes import power_of_two, rounded_tokens
from threedrs.models.scene_inputs import SceneInputs

OWN_TOKENS = 256  # own tokens are a multiple of this
PREDICTIONS = 256  # the fewest
OBJECTS = 32  # the fewest


def rounded(pack: PackTensors, samples: int) -> PackTensors:
    """Return a pack with all sizes rounded up, and room for so many samples."""
    tokens = pack.position_ids.shape[-1]
    own = tokens - pack.prefix_length
    # At least one is added: the points that are added have to stand somewhere.
    own_added = rounded_tokens(own + 1, OWN_TOKENS) - own
    assert len(pack.counted_K) <= samples
    added, points_added = samples - len(pack.counted_K), samples - len(pack.index_P)
    owner_S = pack.owner_S
    if owner_S is None:
        owner_S = pack.ids_T.new_zeros(own)
    last = len(pack.ids_T) + own_added - 1
    return replace(
        pack,
        scene=_with_objects(pack.scene, power_of_two(len(pack.scene.boxes_N6), OBJECTS)),
        ids_T=pad(pack.ids_T, (0, own_added)),
        position_ids=pad(pack.position_ids, (0, own_added)),
        # The added ones are one more sample.
        owner_S=pad(owner_S, (0, own_added), value=len(pack.counted_K)),
        index_P=pad(pack.index_P, (0, points_added), value=last),
        points_P3=pad(pack.points_P3, (0, 0, 0, points_added)),
        text=_more_predictions(pack.text, added),
        grounding=_more_rows(pack.grounding, added),
        counted_K=pad(pack.counted_K, (0, added)),
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
