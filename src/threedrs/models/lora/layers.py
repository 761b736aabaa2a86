"""Low-rank adapters (LoRA, arXiv 2106.09685) on the language model, from peft.

Beside each chosen linear layer W runs B A x * alpha / rank, with B zero at the start. The rows of
``<ground>`` and ``<coord>`` in the two embedding matrices are new and trained in full.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from threedrs.config.schema import LoraSettings
from threedrs.models.student import Student
from threedrs.models.zero3 import whole_rows

# Of peft only what is used, where it is used: most students have no adapter.
if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTER = "default"
LANGUAGE_MODEL = "language_model"


# Peft's way to train single rows copies the whole matrix (1.1 GB at 7B) in every pass and needs it
# whole on every rank, which ZeRO-3 does not give.
class _TrainedRows(nn.Module):
    """A frozen matrix (T,D) of which single rows are trained: ``rows`` (R,D) stand for them."""

    def __init__(self, base_layer: Any, tokens: Sequence[int], rows: nn.Parameter) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.tokens = tuple(tokens)
        self.rows = rows


class TokenRows(_TrainedRows):
    """An embedding matrix with trained rows."""

    def forward(self, ids: Tensor) -> Tensor:
        """Return the embeddings (...,D) of ``ids`` (...)."""
        tokens_TD = self.base_layer(ids)
        for row_D, token in zip(self.rows, self.tokens, strict=True):
            tokens_TD = torch.where((ids == token)[..., None], row_D, tokens_TD)
        return tokens_TD


class HeadRows(_TrainedRows):
    """A vocabulary head with trained rows."""

    start_RD: Tensor
    index_R: Tensor

    def __init__(self, base_layer: Any, tokens: Sequence[int], rows: nn.Parameter) -> None:
        super().__init__(base_layer, tokens, rows)
        self.register_buffer("start_RD", rows.detach().clone(), persistent=False)
        index_R = torch.tensor(self.tokens, device=rows.device)
        self.register_buffer("index_R", index_R, persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the logits (...,T) of hidden states (...,D)."""
        logits = self.base_layer(hidden)
        # The change since the start, so that the start is the base model's bit by bit: a product of
        # its own with the rows may round otherwise than the one with the whole matrix.
        change = nn.functional.linear(hidden, self.rows - self.start_RD)
        return logits.index_add(-1, self.index_R, change)


def add_lora(student: Student, lora: LoraSettings, tokens: Sequence[int], *, seed: int) -> None:
    """Give the student's language model adapters and trained rows, in place, in its precision.

    Under ZeRO-3 all ranks call this, with parameters already spread. The new ones are whole until
    DeepSpeed takes them over.

    ``tokens`` are the ids of ``<ground>`` and ``<coord>``, and ``seed`` is that of the matrices A.
    The student may be whole, spread over ranks, or without values (for counting).
    """
    from peft import inject_adapter_in_model

    language_model = student.language_model
    embedding, head = language_model.get_input_embeddings(), language_model.lm_head
    matrix: nn.Parameter = embedding.weight  # type: ignore[assignment]
    config = lora_config(lora)
    # A generator of their own, so that adapters leave what else is drawn from the seed as it was.
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        inject_adapter_in_model(
            config, language_model, ADAPTER, low_cpu_mem_usage=matrix.device.type == "meta"
        )
    for parameter in _added(language_model.named_parameters()):
        parameter.data = parameter.data.to(matrix.dtype)  # peft makes them float32
    rows = nn.Parameter(whole_rows(matrix, tokens))
    language_model.set_input_embeddings(TokenRows(embedding, tokens, rows))
    # Tied matrices share one parameter, or the two sets of rows would drift apart.
    if head.weight is not matrix:
        rows = nn.Parameter(whole_rows(head.weight, tokens))
    language_model.lm_head = HeadRows(head, tokens, rows)


def lora_config(lora: LoraSettings) -> "LoraConfig":
    """Return peft's configuration of these adapters."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        task_type="CAUSAL_LM",
    )


def is_added(name: str) -> bool:
    """Return whether a parameter of the language model is an adapter's or a trained row."""
    return ".lora_" in name or name.endswith(".rows")


def _added(named: Iterable[tuple[str, nn.Parameter]]) -> list[nn.Parameter]:
    return [parameter for name, parameter in named if is_added(name)]


def trained_parameters(student: Student, tunable: Sequence[str]) -> dict[str, list[nn.Parameter]]:
    """Return the parameters that training changes, by the names of ``train.tunable``."""
    groups = {name: group for name, group in student.parameter_groups().items() if name in tunable}
    # With adapters the language model's own weights stay frozen.
    if isinstance(student.language_model.lm_head, HeadRows) and LANGUAGE_MODEL in groups:
        groups[LANGUAGE_MODEL] = _added(student.language_model.named_parameters())
    return groups


def train_only(student: Student, tunable: Sequence[str]) -> dict[str, list[nn.Parameter]]:
    """Freeze all but `trained_parameters`, in place, and return these."""
    student.requires_grad_(False)
    groups = trained_parameters(student, tunable)
    for parameters in groups.values():
        for parameter in parameters:
            parameter.requires_grad_(True)
    return groups


def adapter_weights(student: Student) -> int:
    """Return the number of weights of all adapters, also where they are spread over ranks."""
    if not isinstance(student.language_model.lm_head, HeadRows):
        return 0
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [m for m in student.language_model.modules() if isinstance(m, LoraLayer)]
    return sum(layer.r[ADAPTER] * (layer.in_features + layer.out_features) for layer in layers)


def merge_lora(student: Student) -> None:
    """Put adapters and trained rows into the weights, in place, so that a plain student remains."""
    from peft.tuners.lora import LoraLayer

    language_model = student.language_model
    for name, layer in list(language_model.named_modules()):
        if isinstance(layer, LoraLayer):
            base: Any = layer.get_base_layer()
            # In half precision a small change would be lost beside the weight that it is added to.
            dtype = base.weight.dtype
            language_model.get_submodule(name).float()
            layer.merge()
            language_model.set_submodule(name, base.to(dtype))
        elif isinstance(layer, _TrainedRows):
            with torch.no_grad():
                layer.base_layer.weight[list(layer.tokens)] = layer.rows
            language_model.set_submodule(name, layer.base_layer)
    language_model.requires_grad_(True)
