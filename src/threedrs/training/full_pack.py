"""A full pack of a run: what it takes of each GPU's memory, and what it computes.

Sizes: P parameters, U of them trained (of a language model with LoRA its adapters and two rows of
each embedding matrix), n GPUs, b bytes of a number (bfloat16: 2, float32: 4); t tokens of a packed
sequence, L language layers of width D, MLP width I, query width a and key width k (of all heads); q
patches of all frames, l vision layers of width w and MLP width i.

Memory of a GPU, in bytes:

- parameters: b P (ZeRO-2) or b P / n (ZeRO-3; 0 if offloaded to the host)
- gathered: b times `stage3_max_live_parameters`, at most b P; b P where
  `stage3_max_reuse_distance` is at least 2 P, so that parameters stay from the forward to the
  backward pass (ZeRO-3 on more than one GPU, or with parameters on the host)
- gradients: b U / n (0 if the optimizer is offloaded)
- optimizer: 12 U / n, float32 master copy and Adam's two moments (0 if offloaded)
- buckets: 2 b times `reduce_bucket_size`, as one is filled while the other is on its way (not for
  ZeRO-2 on one GPU)
- update: for ZeRO-2 a float32 gradient of the largest trained group, 4 bytes a parameter over n, as
  far as it is larger than the activations, which are gone by then (0 if the optimizer is
  offloaded); computed, and never measured. ZeRO-3's is not counted: DeepSpeed copies some
  `sub_group_size` numbers at a time (10^9, so 4 to 6 GB), but does not say which copies it holds
  and when the gathered parameters are gone. At 7B activations alone are some 5 GB. Of the whole
  steps that were measured, one used more memory than planned: 1 % by nvidia-smi, which also counts
  what the allocator keeps free (benchmarks/RESULTS.md)
- kept: b (L t D + l q w), the inputs of all layers; and for each layer that is not recomputed
  b t (3 D + 2 a + 2 k + 3 I) or b q (7 w + 2 i) more; with K > 1 also 3 b t a, keys and values
  repeated for each head that shares them and the two parts of the attention's result; LoRA adds b t
  times its rank for each layer that it is on, with dropout also (b + 1) t times the layer's inputs;
  layers that no gradient reaches, as those of a vision tower that is not trained, keep nothing
- at work: the same of one recomputed layer, and its gradient: b t (2 I + 2 D) or b q (2 i + 2 w),
  the larger of the two
- projector: b q (w + 3 D)
- heads and logits: b 6 D of each of the G x G x V supervised tokens, and 10 bytes of each
  vocabulary entry and predicted token
- recorded passes (`execution.record_passes`): what activations, projector, heads and logits take
  once more, as recordings keep theirs, and 4 MiB of each of at most 32 recordings, measured on a
  small student
- system: 2 GiB for CUDA, NCCL and what the allocator cannot use

Memory of the hosts, all together, for what is offloaded: 16 U for the optimizer with its gradients,
b P for the parameters, and half as much again, as DeepSpeed's own estimate has it
(`estimate_zero3_model_states_mem_needs`). The time of the update there is not in the estimate.

Own tokens, 64 a sample, and the 20 predictions of it are typical figures of the five benchmarks,
not counted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from threedrs.models.lora.layers import trained_parameters
from threedrs.models.student import Student
from threedrs.models.zero3 import shape_of
from threedrs.training.flops import OperationCount, attention_widths
from threedrs.training.recipe import TrainSettings, is_offloaded

GIB = 2**30
OWN_TOKENS = 64
PREDICTIONS = 20  # predicted tokens a sample
TEXT_TOKENS = 44  # shared by the samples of a scene, beside the visual tokens
SYSTEM = 2 * GIB
RECORDINGS = 32 * 4 * 2**20  # of as many as `RecordedPasses` keeps at a time
HOST_BUFFERS = 1.5
# Of a GPU's memory, which `auto` leaves: packs may be longer than the typical one, and an allocator
# without room to move blocks in costs a third of a step (benchmarks/RESULTS.md).
HEADROOM = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class FullPack:
    """A full pack of a run, from which follow what it keeps in memory and what it computes."""

    student: Student
    settings: TrainSettings
    frames: int  # of its scene

    @property
    def size(self) -> int:
        """The bytes of a number."""
        return 2 if self.settings.precision == "bfloat16" else 4

    @property
    def tokens(self) -> int:
        """The tokens of the sequence."""
        visual = self.frames * self.student.family.grid.frame_tokens
        return visual + TEXT_TOKENS + self.settings.pack * OWN_TOKENS

    @property
    def parameters(self) -> tuple[int, int]:
        """How many parameters there are, and how many are trained."""
        whole = sum(math.prod(shape_of(parameter)) for parameter in self.student.parameters())
        return whole, sum(self._trained_groups)

    @property
    def _trained_groups(self) -> list[int]:
        """How many parameters each group has that are trained."""
        trained = trained_parameters(self.student, self.settings.tunable)
        return [sum(math.prod(shape_of(each)) for each in group) for group in trained.values()]

    @property
    def _layers_of_towers(self) -> tuple[int, int]:
        """The layers of the vision tower and of the language model that a gradient reaches."""
        # Of the others autograd keeps nothing, recomputed or not.
        trained = set(self.settings.tunable)
        vision = self.student.family.run_layers if "vision_tower" in trained else 0
        return vision, self.student.text_config.num_hidden_layers if trained - {"heads"} else 0

    @property
    def layers(self) -> int:
        """The layers of both towers that a gradient reaches."""
        return sum(self._layers_of_towers)

    @property
    def kept_layers(self) -> int | None:
        """How many of them keep their activations; None where nothing is recomputed."""
        if not self.settings.gradient_checkpointing:
            return None
        kept = self.settings.kept_layers
        assert not isinstance(kept, str), "`fitted` chooses them"
        return min(kept, self.layers)

    @property
    def _kept_of_towers(self) -> tuple[int, int]:
        """How many layers of the vision tower and of the language model keep their activations."""
        kept = self.layers if self.kept_layers is None else self.kept_layers
        language = min(kept, self._layers_of_towers[1])
        return kept - language, language

    @property
    def vision_layer_numbers(self) -> float:
        """The numbers that a layer of the vision tower keeps where it is not recomputed."""
        patches, width, inner = self.student.family.vision_sizes()
        return self.frames * patches * (7 * width + 2 * inner)

    @property
    def layer_numbers(self) -> float:
        """The numbers that a language layer keeps of the pack where it is not recomputed."""
        text, lora = self.student.text_config, self.settings.lora
        width, inner = text.hidden_size, text.intermediate_size
        queries, keys = attention_widths(text)
        numbers: float = 3 * width + 2 * queries + 2 * keys + 3 * inner
        if self.settings.pack > 1:
            numbers += 3 * queries
        if lora is not None:
            numbers += lora.rank * len(lora.targets)
            if lora.dropout:
                widths = {"down_proj": inner, "o_proj": queries}
                inputs = sum(widths.get(name, width) for name in lora.targets)
                numbers += inputs * (self.size + 1) / self.size
        return self.tokens * numbers

    def activations(self) -> dict[str, float]:
        """Return the bytes of what a forward pass leaves, and of the layer at work."""
        family, text, settings = self.student.family, self.student.text_config, self.settings
        width, inner = text.hidden_size, text.intermediate_size
        patches, vision_width, vision_inner = family.vision_sizes()
        patches *= self.frames
        tokens, layer, vision_layer = self.tokens, self.layer_numbers, self.vision_layer_numbers
        vision_layers, language_layers = self._layers_of_towers
        kept: float = language_layers * tokens * width + vision_layers * patches * vision_width
        vision_kept, language_kept = self._kept_of_towers
        kept += language_kept * layer + vision_kept * vision_layer
        at_work: float = tokens * (2 * inner + 2 * width)
        vision_at_work: float = patches * (2 * vision_inner + 2 * vision_width)
        if self.kept_layers is not None:
            # The layer that is recomputed has all that it would have kept.
            at_work += layer
            vision_at_work += vision_layer
        supervised = self.frames * family.grid.coarse**2 * 6 * width
        logits = 10 * text.vocab_size * PREDICTIONS * settings.pack
        return {
            "kept activations": float(self.size * kept),
            "layer at work": float(self.size * max(at_work, vision_at_work)),
            "projector": float(self.size * patches * (vision_width + 3 * width)),
            "heads and logits": float(
                self.size * supervised * bool(self.student.teacher_channels) + logits
            ),
        }

    def memory(self, deepspeed: Mapping[str, Any], gpus: int) -> dict[str, float]:
        """Return the bytes of memory of each GPU, by the parts of the module's text."""
        (whole, tuned), zero = self.parameters, deepspeed["zero_optimization"]
        spread = zero["stage"] == 3
        on_hosts = is_offloaded(deepspeed, "param")
        share = 0 if on_hosts else self.size * whole / (gpus if spread else 1)
        live = min(zero.get("stage3_max_live_parameters", 1e9), whole)
        if zero.get("stage3_max_reuse_distance", 1e9) >= 2 * whole:
            live = whole
        gathered = spread and (gpus > 1 or on_hosts)
        update = 0.0 if is_offloaded(deepspeed, "optimizer") else tuned / gpus
        largest = min(zero.get("reduce_bucket_size", 5e8), tuned)
        bucket = 0 if self._is_alone(deepspeed, gpus) else largest
        copied = 0.0 if spread else 4 * update * max(self._trained_groups) / tuned
        activations = self.activations()
        used = sum(activations.values())
        recorded = self.is_recorded(deepspeed, gpus)
        return {
            "parameters": float(share),
            "gathered parameters": float(self.size * live) if gathered else 0.0,
            "gradients": self.size * update,
            "optimizer": 12 * update,
            "buckets": 2.0 * self.size * bucket,
            "update": max(0.0, copied - used),
            **activations,
            "recorded passes": used + RECORDINGS if recorded else 0.0,
            "system": float(SYSTEM),
        }

    def _is_alone(self, deepspeed: Mapping[str, Any], gpus: int) -> bool:
        """Whether one GPU holds everything (`OneRankEngine`)."""
        spread = deepspeed["zero_optimization"]["stage"] == 3
        return gpus == 1 and not spread and not is_offloaded(deepspeed, "optimizer")

    def is_recorded(self, deepspeed: Mapping[str, Any], gpus: int) -> bool:
        """Whether passes are replayed as CUDA graphs (`RecordedPasses`)."""
        possible = not any(self.settings.recording_obstacles().values())
        return self.settings.record_passes and possible and self._is_alone(deepspeed, gpus)

    def host_memory(self, deepspeed: Mapping[str, Any]) -> float:
        """Return the bytes of host memory that offloaded parts take on all hosts together."""
        whole, tuned = self.parameters
        optimizer = 16 * tuned * is_offloaded(deepspeed, "optimizer")
        return HOST_BUFFERS * (optimizer + self.size * whole * is_offloaded(deepspeed, "param"))

    def operations(self) -> tuple[float, float]:
        """Return the operations of the pack, and of what is recomputed of it besides."""
        settings, own = self.settings, [OWN_TOKENS] * self.settings.pack
        parts = OperationCount(self.student, settings.tunable).parts(
            frames=self.frames,
            prefix=self.tokens - sum(own),
            own=own,
            predictions=PREDICTIONS * settings.pack,
        )
        repeated = 0.0
        towers, layers = ("vision_tower", "language_model"), self._layers_of_towers
        for name, kept, of in zip(towers, self._kept_of_towers, layers, strict=True):
            if parts[name].backward:  # otherwise nothing asks for its activations again
                repeated += (1 - kept / of) * parts[name].forward
        return sum(part.total for part in parts.values()), repeated

    def most_kept_layers(
        self, deepspeed: Mapping[str, Any], gpus: int, memory: float
    ) -> int | None:
        """Return how many layers can keep their activations in ``memory`` bytes of each GPU.

        None where all layers keep them anyway.
        """
        if self.kept_layers is None:
            return None
        parts = self.memory(deepspeed, gpus)
        # What activations take is free again at the update.
        free = memory - sum(parts.values()) + parts["update"]
        vision, language = self._layers_of_towers
        # The language model's first: for a byte kept they save twice the time of the tower's.
        sizes = [self.layer_numbers] * language
        sizes += [self.vision_layer_numbers] * vision
        ends = [self.size * each for each in accumulate(sizes, initial=0)]
        return sum(end <= ends[self.kept_layers] + free for end in ends[1:])

    def fitted(self, deepspeed: Mapping[str, Any], gpus: int, memory: float) -> "FullPack":
        """Return the pack with as many kept layers as fit ``memory`` bytes, if they are `auto`."""
        settings = self.settings
        if settings.kept_layers != "auto":
            return self
        none = replace(self, settings=settings.replace(kept_layers=0))
        most = none.most_kept_layers(deepspeed, gpus, (1 - HEADROOM) * memory) or 0
        return replace(self, settings=settings.replace(kept_layers=most))
