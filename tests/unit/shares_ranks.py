"""A small DeepSpeed engine and what ranks do with it: `python shares_ranks.py FOLDER` as a rank."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from threedrs.distributed.training_ranks import Ranks, start_ranks
from threedrs.training.optimizer_shards import MOMENTS, read_shares, write_shares

STAGES = (2, 3)
SAMPLES = 4  # of an optimizer step
SAVED, TOTAL = 3, 5  # steps before the save, and in all
RATES = (0.05, 0.02)


class Model(nn.Module):
    """A frozen layer, then two trained ones with rates of their own; sizes that do not divide."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*sizes) for sizes in [(3, 7), (7, 5), (5, 3)])
        self.layers[0].requires_grad_(False)

    def forward(self, x_BD: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x_BD = torch.tanh(layer(x_BD))
        return x_BD


def new_model(seed: int = 0) -> Model:
    torch.manual_seed(0)
    model = Model()
    if seed:  # trained weights of another run; the frozen ones come with the student
        torch.manual_seed(seed)
        for layer in model.layers[1:]:
            layer.reset_parameters()
    return model


def groups(model: Model) -> list[dict[str, Any]]:
    trained = zip(model.layers[1:], RATES, strict=True)
    return [{"params": list(layer.parameters()), "lr": rate} for layer, rate in trained]


def samples(step: int) -> torch.Tensor:
    return torch.randn(SAMPLES, 3, generator=torch.Generator().manual_seed(step))


def new_engine(
    stage: int, ranks: Ranks, *, bfloat16: bool = False, offload: bool = False, seed: int = 0
) -> Any:
    import deepspeed

    model = new_model(seed)
    zero: dict[str, Any] = {"stage": stage, "stage3_param_persistence_threshold": 8}
    if offload:
        zero |= {name: {"device": "cpu"} for name in ("offload_optimizer", "offload_param")}
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(groups(model), weight_decay=0.01),
        config={
            "train_micro_batch_size_per_gpu": SAMPLES // ranks.count,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "bf16": {"enabled": bfloat16},
        },
    )
    return engine


def train(engine: Any, ranks: Ranks, first: int, last: int) -> None:
    """Run steps ``first`` to ``last`` - 1: the mean squared output over all samples."""
    for step in range(first, last):
        x_BD = samples(step)[ranks.rank :: ranks.count].to(next(engine.module.parameters()).dtype)
        engine.backward(engine(x_BD).float().square().mean())
        engine.step()


def whole_state(engine: Any) -> dict[str, torch.Tensor]:
    """Gather weights and moments through DeepSpeed's own interface; needs a step before."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    zero, state = engine.optimizer, {}
    if engine.zero_optimization_stage() == 2:  # linked after the first group's step: too early
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            state[f"weights/{name}"] = safe_get_full_fp32_param(parameter).clone()
            for moment in MOMENTS:
                value = safe_get_full_optimizer_state(parameter, moment)
                state[f"{moment}/{name}"] = value.clone()
    return state


def output(engine: Any) -> torch.Tensor:
    with torch.no_grad():
        return engine(samples(99).to(next(engine.module.parameters()).dtype)).float()


def main(folder: Path) -> None:
    """Train from the start, save; go on from what one rank has saved. Keep what came out."""
    ranks = start_ranks()
    found: dict[str, Any] = {}
    for stage in STAGES:
        engine = new_engine(stage, ranks)
        train(engine, ranks, 0, SAVED)
        write_shares(engine, folder / f"by-two-{stage}", ranks)
        found[f"saved-{stage}"] = whole_state(engine)
        for other in STAGES:
            engine = new_engine(stage, ranks, seed=1)
            read_shares(engine, folder / f"by-one-{other}", ranks, SAVED)
            found[f"output-{other}-{stage}"] = output(engine)
            train(engine, ranks, SAVED, TOTAL)
            found[f"whole-{other}-{stage}"] = whole_state(engine)
    torch.distributed.barrier()
    torch.save(found, folder / f"found{ranks.rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
