"""A student, scenes and records small enough for tests, yet with the real image and token grids."""

from collections.abc import Sequence
from functools import cache

import torch
from transformers import PreTrainedTokenizerBase, Qwen2Config, SiglipVisionConfig

from threedrs.instructions.record import Record, conversation
from threedrs.models.backbones.llava import LlavaFamily
from threedrs.models.backbones.tiny import tiny_tokenizer
from threedrs.models.checkpoint.vocabulary import add_tokens
from threedrs.models.grid import LLAVA_GRID, VisualGrid
from threedrs.models.prompt import build_sample
from threedrs.models.samples import Pack, SceneInputs
from threedrs.models.student import Student

CHANNELS = 16
SCENE = "scene0000_00"


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    result = tiny_tokenizer()
    assert add_tokens(result)
    return result


def student(
    *,
    seed: int = 0,
    teacher_channels: int = CHANNELS,
    tied: bool = False,
    width: int = 32,
    heads: tuple[int, int] = (4, 2),
) -> Student:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        family = LlavaFamily(
            Qwen2Config(
                vocab_size=len(tokenizer()),
                hidden_size=width,
                intermediate_size=48,
                num_hidden_layers=3,
                num_attention_heads=heads[0],
                num_key_value_heads=heads[1],
                tie_word_embeddings=tied,
                # Larger than usual, so that random weights give answers that differ.
                initializer_range=0.2,
                rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            ),
            SiglipVisionConfig(
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=384,
                patch_size=14,
            ),
            LLAVA_GRID,
        )
        result = Student(family, teacher_channels=teacher_channels)
    return result.eval()


def scene(
    *,
    frames: int = 2,
    objects: int = 4,
    seed: int = 0,
    channels: int | None = CHANNELS,
    grid: VisualGrid = LLAVA_GRID,
) -> SceneInputs:
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=random)

    return SceneInputs(
        scene=SCENE,
        rgb_VHWC=(uniform(frames, 384, 384, 3) * 256).to(torch.uint8),
        patch_xyz_VGG3=uniform(frames, grid.coarse, grid.coarse, 3) * 6 - 3,
        boxes_N6=torch.cat([uniform(objects, 3) * 4 - 2, uniform(objects, 3) + 0.1], dim=1),
        fine_NVFF=uniform(objects, frames, grid.fine, grid.fine) > 0.9,
        coarse_NVGG=uniform(objects, frames, grid.coarse, grid.coarse) > 0.9,
        teacher_VGGC=None if channels is None else uniform(frames, 14, 14, channels).half() - 0.5,
        grid=grid,
    )


def record(
    human: str,
    answer: str,
    *,
    name: str = "r0",
    object_ids: list[int] | None = None,
    box_input: list[float] | None = None,
) -> Record:
    return Record(
        id=name,
        benchmark="scanqa",
        scene=SCENE,
        conversations=conversation(human, answer),
        object_ids=object_ids,
        box_input=box_input,
    )


TEXT = record("<image> What color is the chair? Answer the question simply.", "red", name="t0")
CAPTION = record(
    "<image> Given an object located at <coord> , describe the object in detail.",
    "It is a wide white bed.\nThe bed is near the door.",
    name="t1",
    box_input=[0.5, -1.25, 0.75, 1.0, 1.0, 1.0],
)
GROUNDING = record(
    "<image>Identify the object according to the following description.\nA red box.",
    "<ground>",
    name="g0",
    object_ids=[12, 10],
)
ZERO_TARGET = record(
    "<image>Identify the object according to the following description.\nA lamp\nThere may be no "
    "corresponding object, or there may be one or more objects.",
    "<ground>",
    name="g1",
    object_ids=[],
)
MIXED = (TEXT, GROUNDING, CAPTION, ZERO_TARGET)
BOX_IDS = (10, 11, 12, 13)


def pack(
    records: Sequence[Record] = MIXED,
    inputs: SceneInputs | None = None,
    *,
    label_chat_tokens: bool = True,
) -> Pack:
    samples = tuple(
        build_sample(item, BOX_IDS, tokenizer(), label_chat_tokens=label_chat_tokens)
        for item in records
    )
    return Pack(scene=scene() if inputs is None else inputs, samples=samples)
