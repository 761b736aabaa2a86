"""Weights and AdamW's moments on disk, readable by any number of ranks, by ZeRO-2 and ZeRO-3.

ZeRO keeps on each rank a run of elements of each trained, flattened parameter: its float32 weights
and both moments. Here such a run is a shard. ``write_shards`` writes a rank's shards to files of
its own, with the first element of each in the file's header. ``read_shards`` fills the shards that
a rank holds now from whichever files have their elements. Nothing is gathered or sent, and one file
(``FILE_BYTES``, or one shard, if that is larger) is in host memory at a time.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from threedrs.distributed.ranks import Ranks
from threedrs.errors import CheckpointError

FILE_BYTES = 2**30
WEIGHTS = "weights"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A rank's elements of a flattened parameter."""

    name: str  # of the parameter
    start: int  # index of the first element in the flattened parameter
    tensors: dict[str, torch.Tensor]  # by kind, what the optimizer works on: views (n,) float32


def _is_zero3(engine: Any) -> bool:
    return engine.zero_optimization_stage() == 3


def _flat_weights(engine: Any) -> list[torch.Tensor]:
    """Return this rank's flat float32 weights, which are the parameters of the AdamW inside."""
    zero = engine.optimizer
    if _is_zero3(engine):
        return zero.fp32_partitioned_groups_flat
    return zero.single_partition_of_fp32_groups


def _runs(engine: Any, ranks: Ranks) -> Iterator[tuple[torch.nn.Parameter, int, int, int, int]]:
    """Yield parameter, group, first element in the parameter and in the group, and length."""
    zero = engine.optimizer
    # ZeRO-3 cuts each parameter into as many equal runs as there are ranks and pads the last one.
    if _is_zero3(engine):
        for group, parameters in enumerate(zero.fp16_groups):
            offset = 0
            for parameter in parameters:
                length = parameter.partition_numel()
                start = ranks.rank * length
                yield parameter, group, start, offset, min(length, parameter.ds_numel - start)
                offset += length
        return
    # ZeRO-2 lays the parameters of a group end to end and cuts the whole into equal runs, so that
    # a border can lie anywhere within a parameter.
    for group, parameters in enumerate(zero.bit16_groups):
        whole = zero.bit16_groups_flat[group]
        length = whole.numel() // ranks.count
        low, high = ranks.rank * length, (ranks.rank + 1) * length
        for parameter in parameters:
            first = (parameter.data_ptr() - whole.data_ptr()) // whole.element_size()
            start, end = max(first, low), min(first + parameter.numel(), high)
            yield parameter, group, start - first, start - low, end - start


def _own_shards(engine: Any, ranks: Ranks) -> Iterator[Shard]:
    names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
    flats, states = _flat_weights(engine), engine.optimizer.optimizer.state
    for parameter, group, start, offset, length in _runs(engine, ranks):
        if length <= 0:
            continue
        flat = flats[group]
        kinds = {WEIGHTS: flat} | {moment: states[flat][moment] for moment in MOMENTS}
        tensors = {kind: values.data.narrow(0, offset, length) for kind, values in kinds.items()}
        yield Shard(name=names[id(parameter)], start=start, tensors=tensors)


def _set_moments(engine: Any, step: int) -> None:
    """Give AdamW moments of zeros, to be filled, and its count of steps."""
    # AdamW makes its own at its first step only, and the engine has flattened its parameters.
    adamw = engine.optimizer.optimizer
    for flat in _flat_weights(engine):
        count: Any = step
        if isinstance(adamw, torch.optim.AdamW):  # DeepSpeed's AdamW on the CPU counts in int
            fused = adamw.defaults["fused"]
            count = torch.tensor(float(step), device=flat.device if fused else "cpu")
        moments = {moment: torch.zeros_like(flat.data) for moment in MOMENTS}
        adamw.state[flat] = {"step": count} | moments


def write_shards(engine: Any, folder: Path, ranks: Ranks) -> list[Path]:
    """Write this rank's shards to ``folder``/rank-00000-000.safetensors and so on; return these.

    Raises:
        OSError, SafetensorError: a file cannot be written.
    """
    if not engine.optimizer.optimizer.state:  # stopped before the first step
        _set_moments(engine, 0)
    folder.mkdir(exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    starts: dict[str, int] = {}
    written: list[Path] = []

    def write() -> None:
        written.append(folder / f"rank-{ranks.rank:05d}-{len(written):03d}.safetensors")
        save_file(tensors, written[-1], metadata={"starts": json.dumps(starts)})

    for shard in _own_shards(engine, ranks):
        for kind, values in shard.tensors.items():
            tensors[f"{kind}/{shard.name}"] = values.to("cpu", copy=True)
            starts[f"{kind}/{shard.name}"] = shard.start
        if sum(4 * values.numel() for values in tensors.values()) >= FILE_BYTES:
            write()
            tensors, starts = {}, {}
    if tensors:
        write()
    return written


class _Files:
    """The runs of all parameters in a checkpoint's files; reads elements of any of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: dict[str, list[tuple[int, int, Any]]] = {}
        for path in sorted(folder.glob("rank-*.safetensors")):
            file = safe_open(path, framework="pt")
            starts = json.loads(file.metadata()["starts"])
            for key in file.keys():  # noqa: SIM118 (not a mapping)
                values = file.get_slice(key)
                start, (length,) = starts[key], values.get_shape()
                self.runs.setdefault(key, []).append((start, start + length, values))

    def fill(self, key: str, start: int, out: torch.Tensor) -> None:
        """Copy elements ``start`` to ``start`` + n of ``key`` into ``out`` (n,).

        Raises:
            CheckpointError: not all of them are in the files.
        """
        end, copied = start + out.numel(), 0
        for first, last, values in self.runs.get(key, []):
            low, high = max(first, start), min(last, end)
            if low < high:
                out[low - start : high - start].copy_(values[low - first : high - first])
                copied += high - low
        if copied != out.numel():
            raise CheckpointError(
                f"{self.folder}: has {copied} of the elements {start} to {end} of {key}; move the "
                "checkpoint away and run again"
            )


def read_shards(engine: Any, folder: Path, ranks: Ranks, step: int) -> None:
    """Set weights and moments, after ``step`` optimizer steps, from the files of ``write_shards``.

    All ranks call this; the files may be those of another number of ranks or ZeRO stage.

    Raises:
        CheckpointError: a parameter is not, or not wholly, in the files.
    """
    files = _Files(folder)
    _set_moments(engine, step)
    for shard in _own_shards(engine, ranks):
        for kind, values in shard.tensors.items():
            files.fill(f"{kind}/{shard.name}", shard.start, values)
    if _is_zero3(engine):
        zero = engine.optimizer
        # The shards above are float32 masters. The copies that the model computes with follow.
        zero.checkpoint_event_prologue()  # drops whole copies of parameters that stay whole
        for group in range(len(_flat_weights(engine))):
            zero._reassign_or_swap_out_partitioned_parameters(group)
        zero.checkpoint_event_epilogue()  # gathers them again
        return
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            whole = torch.empty(parameter.numel(), dtype=torch.float32)
            files.fill(f"{WEIGHTS}/{name}", 0, whole)
            parameter.data.copy_(whole.view(parameter.shape))
