"""What each rank of test_zero3.py runs: `python -m torch.distributed.run zero3_ranks.py FOLDER`.

Two ranks under the ZeRO-3 settings of config/deepspeed/zero3.json, but that no parameter is small
enough to stay whole: the first one's pack has text and grounding samples, the other's text only.
Then they answer questions. The gathered gradients of the last step, the students' weights and the
answers go to FOLDER for the test to read. DeepSpeed looks on for two steps; in the third it gathers
ahead what it has seen.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from student_fixtures import CAPTION, GROUNDING, TEXT, ZERO_TARGET, pack, scene, tokenizer

from threedrs.distributed.training_ranks import start_ranks
from threedrs.models.backbones import registry as architecture
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.inference import SceneSession
from threedrs.models.prompt import build_query
from threedrs.models.settings import ModelSettings, SupervisionSettings
from threedrs.models.student import Student

PACKS = ((TEXT, GROUNDING, ZERO_TARGET), (CAPTION, TEXT))
SUPERVISION = SupervisionSettings(weight=0.7)
SHIPPED = Path(__file__).resolve().parents[2] / "config/deepspeed/zero3.json"
CONFIG: dict[str, Any] = json.loads(SHIPPED.read_text()) | {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": 1,
    "zero_force_ds_cpu_optimizer": False,
}
CONFIG["zero_optimization"]["stage3_param_persistence_threshold"] = 0
STEPS = 3


def shrink_full_size() -> None:
    """Make the full size small, but for its path through the code."""
    text = {"vocab_size": 2000, "hidden_size": 32, "intermediate_size": 48}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    architecture.TEXT_7B.update(text | heads)
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    architecture.SO400M.update(vision | {"num_attention_heads": 2})


def gathered(student: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return whole copies of the parameters."""
    import deepspeed

    state = {}
    for name, parameter in student.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            state[name] = parameter.detach().clone()
    return state


def answers(student: Student, rank: int) -> list[list[int]]:
    """Return what a rank answers to two questions, though their logits tell it other tokens.

    To the first rank no answer ends; to the other every one does at once.
    """
    session = SceneSession(student.eval(), tokenizer(), scene(), prompt="reference")

    def other_logits(module: Any, inputs: Any, logits_BT: torch.Tensor) -> torch.Tensor:
        logits_BT[:, session.end] = torch.inf if rank else -torch.inf
        return logits_BT

    student.language_model.lm_head.register_forward_hook(other_logits)
    queries = [build_query(one, tokenizer(), prompt="reference") for one in (TEXT, CAPTION)]
    return session.generate(queries, max_new_tokens=4)


def main(folder: Path) -> None:
    """Load the saved student spread over the ranks, run one step, write what came out."""
    ranks = start_ranks()
    import deepspeed
    from deepspeed.utils import safe_get_full_grad

    tiny, _ = load_student(ModelSettings(), teacher_channels=8, zero_init=CONFIG)
    shrink_full_size()
    random, _ = load_student(
        ModelSettings(name="llava-video", size="7b", random_weights=True),
        teacher_channels=8,
        zero_init=CONFIG,
    )
    student, _ = load_student(ModelSettings(path=folder / "model"), zero_init=CONFIG)
    shares = sum(parameter.ds_tensor.numel() for parameter in student.parameters())
    tied, _ = load_student(ModelSettings(path=folder / "tied"), zero_init=CONFIG)
    students = {"tiny": tiny, "random": random, "loaded": student, "tied": tied}
    before: dict[str, Any] = {name: gathered(one) for name, one in students.items()}
    before["shares"] = shares
    optimizer = torch.optim.SGD(student.parameters(), lr=0.0)
    engine, *_ = deepspeed.initialize(model=student, optimizer=optimizer, config=CONFIG)
    packed = pack(PACKS[ranks.rank], scene(seed=ranks.rank))
    assert len(tokenizer()) > 0
    student.gradient_checkpointing_enable(kept_layers=1)
    student.train()
    for step in range(STEPS):
        if step:
            engine.step()
        loss = engine(packed, SUPERVISION).total(SUPERVISION.weight)
        engine.backward(loss)
    gradients = {n: safe_get_full_grad(p).clone() for n, p in student.named_parameters()}
    after = {"gradients": gradients, "answers": answers(student, ranks.rank)}
    torch.save(before | after, folder / f"rank{ranks.rank}.pt")
    torch.distributed.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
