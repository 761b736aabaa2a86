"""Forward and backward passes over packs, replayed as CUDA graphs (`execution.record_passes`).

A pass of a small student is some 2,000 small kernels, and the host needs longer to launch them than
a GPU to run them. A recorded pass reads a pack where the recording did, and adds to the gradients
where they lie, of parameters that stay where they are (`OneRankEngine`). The update is launched.

A recording serves packs of one size. So sizes are rounded up, and a size is launched at its first
use, recorded at its second and replayed from then on. Kept are the `SIZES` used last, each with a
copy of a pack's tensors, mostly images, and 2 to 8 MiB of CUDA's own. What a pass takes up
meanwhile is kept once, that of the largest size, beside what launched passes took. `threedrs plan`
counts both (`threedrs.training.full_pack`).
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from threedrs.distributed.ranks import Ranks
from threedrs.models.pack_rounding import rounded
from threedrs.models.packing import Pack, PackTensors, on_device
from threedrs.models.scene_inputs import with_tensors
from threedrs.training.recipe import TrainSettings
from threedrs.training.step import PackObjective

SIZES = 32
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PassInputs:
    """Everything that a pass reads, beside the parameters."""

    pack: PackTensors
    counts: Tensor  # see `PackObjective.counts`
    scale: Tensor  # () of the loss whose gradient is added


def tensors_of(holder: Any) -> list[Tensor]:
    """Return the tensors of a dataclass, and of those within it."""
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    with_tensors(holder, keep)
    return found


def size_of(inputs: PassInputs) -> tuple[Any, ...]:
    """Return all that passes of one recording have in common."""
    shapes = ((tensor.shape, tensor.dtype) for tensor in tensors_of(inputs))
    return (inputs.pack.before, inputs.pack.prefix_length, *shapes)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recorded pass, with what it reads and the sums (9,) that it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: PassInputs
    sums: Tensor

    def replay(self, inputs: PassInputs) -> Tensor:
        """Run the pass over ``inputs`` of its size; return the sums (9,)."""
        torch._foreach_copy_(tensors_of(self.inputs), tensors_of(inputs))
        self.graph.replay()
        return self.sums.clone()  # the next replay writes there


class RecordedPasses:
    """The passes of an engine's objective over packs of at most ``samples`` samples."""

    def __init__(self, objective: PackObjective, samples: int) -> None:
        self.objective = objective
        self.samples = samples
        self.recordings: dict[Any, Recording | None] = {}  # None: met once
        self.stream: torch.cuda.Stream | None = None

    def add_gradient(self, pack: Pack, scale: float) -> Tensor:
        """Add the gradient of ``scale`` times a pack's loss; return its sums (9,), see `SUMS`.

        The scene of the pack is on the device.
        """
        inputs = self._inputs(pack, scale)
        size = size_of(inputs)
        met = size in self.recordings
        recording = self.recordings.pop(size, None)
        if met and recording is None:
            recording = self._record(inputs)
        self.recordings[size] = recording  # behind those that were used before
        if len(self.recordings) > SIZES:
            torch.cuda.synchronize()  # its last replay may still run
            del self.recordings[next(iter(self.recordings))]
        if recording is not None:
            return recording.replay(inputs)
        # What a library prepares at first use must not fall into the recording.
        with self._beside():
            return self._pass(inputs)

    def _inputs(self, pack: Pack, scale: float) -> PassInputs:
        tensors = PackTensors.of(pack, self.objective.student.family)
        inputs = PassInputs(
            pack=rounded(tensors, self.samples),
            counts=self.objective.counts(pack, tensors.predictions),
            scale=torch.tensor(scale),
        )
        return with_tensors(inputs, lambda tensor: on_device(tensor, pack.scene.rgb_VHWC.device))

    def _pass(self, inputs: PassInputs) -> Tensor:
        objective = self.objective
        losses = objective.student.losses(inputs.pack, objective.supervision)
        loss, sums = objective.measure(losses, inputs.counts)
        (inputs.scale * loss).backward()
        return sums

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """Launch what is inside on the stream of recordings, after and before all else."""
        # Autograd adds to a gradient on the stream where it first met the parameter. A recording
        # that waited for another stream than its own would fail.
        if self.stream is None:
            self.stream = torch.cuda.Stream()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            yield
        torch.cuda.current_stream().wait_stream(self.stream)

    def _record(self, inputs: PassInputs) -> Recording:
        kept = with_tensors(inputs, torch.clone)
        # One pass runs at a time, so all need the memory of the largest only. A pool ends with its
        # last graph.
        others = [other.graph for other in self.recordings.values() if other is not None]
        pool = others[0].pool() if others else None
        graph = torch.cuda.CUDAGraph()
        # The thread that takes packs over from their loaders goes on with work of its own.
        with torch.cuda.graph(graph, pool, self.stream, capture_error_mode="thread_local"):
            sums = self._pass(kept)
        return Recording(graph=graph, inputs=kept, sums=sums)


def recorded_passes(
    objective: PackObjective, settings: TrainSettings, ranks: Ranks, *, alone: bool
) -> RecordedPasses | None:
    """Return the passes if the run asks for recorded ones; one line says why there are none.

    ``alone`` says that one rank holds everything on its device.
    """
    if not settings.record_passes:
        return None
    obstacles = {
        "without a GPU": ranks.device.type != "cuda",
        "on several ranks, with ZeRO-3 or with offload": not alone,
        **settings.recording_obstacles(),
    }
    if found := [obstacle for obstacle, there in obstacles.items() if there]:
        if ranks.first:
            logger.warning("execution.record_passes: no pass is recorded %s", ", ".join(found))
        return None
    return RecordedPasses(objective, settings.pack)
