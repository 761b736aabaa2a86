"""Questions answered per second: a scene's questions together, beside one after the other.

Random weights; random pictures; questions of ScanQA's kind; every answer is exactly as long as
asked for. "One at a time" is the usual way: for each question the frames are encoded again, and
pictures and question prefilled together, with torch's own attention and a plain cache. Its answers
are also the check: how many of them the shared way gives token for token. With random weights and
bfloat16 that says little, as the best tokens' scores often lie closer together than a rounding
step; with float32 it must be all.

"After a prefix that is over" is the time to the first tokens when the questions come to a scene
whose prefix has run and nothing is queued, as in `threedrs chat`. "Questions' prefill" is what they
add to a scene that is opened for them, where the host is ahead of the GPU.

    python benchmarks/inference.py --size 7b --dtype bfloat16
"""

import argparse
import datetime
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from transformers import DynamicCache, PreTrainedTokenizerBase

from harness import choose_device, device_name, seconds
from threedrs.config.schema import ModelSize
from threedrs.models.backbones.fused_layers import fuse_projections
from threedrs.models.checkpoint.decoding import Decoding
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.inference import SceneSession
from threedrs.models.model_settings import ModelSettings
from threedrs.models.packing import Query, coordinates
from threedrs.models.prompt import build_query
from threedrs.models.scene_inputs import SceneInputs
from threedrs.models.student import Student
from threedrs.models.token_passes import TokenPasses
from threedrs.tasks.record import Record, conversation

THINGS = ("chair", "table", "window", "door", "bookshelf", "couch", "lamp", "whiteboard")
KINDS = (
    "What color is the {0} that is next to the {1}?",
    "How many {0}s are between the {1} and the wall on the left side of the room?",
    "Where is the {0} located?",
    "What is on top of the {0} to the right of the {1}?",
)


def build(
    size: ModelSize, device: torch.device, dtype: torch.dtype
) -> tuple[Student, PreTrainedTokenizerBase]:
    """Return a student with random weights, made on ``device``, and the tiny tokenizer."""
    settings = ModelSettings(name="llava-video", size=size, random_weights=size != "tiny")
    with device:
        student, tokenizer = load_student(settings, teacher_channels=0)
    fuse_projections(student.to(dtype).language_model)
    return student, tokenizer


def make_scene(frames: int, device: torch.device, objects: int = 40) -> SceneInputs:
    """Return a scene of random pictures and boxes."""
    random = torch.Generator().manual_seed(1)
    scene = SceneInputs(
        scene="scene0000_00",
        rgb_VHWC=torch.randint(0, 256, (frames, 384, 384, 3), generator=random, dtype=torch.uint8),
        patch_xyz_VGG3=torch.rand(frames, 14, 14, 3, generator=random) * 6 - 3,
        boxes_N6=torch.rand(objects, 6, generator=random) * 2,
        fine_NVFF=torch.rand(objects, frames, 27, 27, generator=random) > 0.98,
        coarse_NVGG=torch.rand(objects, frames, 14, 14, generator=random) > 0.98,
        teacher_VGGC=None,
    )
    return scene.to(device)


def make_queries(count: int, tokenizer: PreTrainedTokenizerBase) -> list[Query]:
    """Return ``count`` questions."""
    queries = []
    for number in range(count):
        first, second = THINGS[number % 8], THINGS[(number // 8 + number + 1) % 8]
        text = KINDS[number % 4].format(first, second)
        human = f"<image> {text} Answer the question using a single word or phrase."
        record = Record(
            id=f"q{number}",
            benchmark="scanqa",
            scene="scene0000_00",
            conversations=conversation(human, "-"),
        )
        queries.append(build_query(record, tokenizer, prompt="reference"))
    return queries


@torch.no_grad()
def one_at_a_time(student: Student, scene: SceneInputs, query: Query, tokens: int) -> list[int]:
    """Return an answer's tokens: everything from the pictures on, for this question alone."""
    cache = DynamicCache(config=student.text_config)
    before, after = query.prefix.before_ids, query.prefix.after_ids
    visual = student.visual_tokens(scene)
    ids = torch.tensor([*before, *after, *query.input_ids.tolist()], device=student.device)
    text_TD = student.embed(ids, *coordinates((query,), (len(before) + len(after),)))
    inputs_TD = torch.cat([text_TD[: len(before)], visual.sequence_TD, text_TD[len(before) :]])
    position, answer = 0, []
    while True:
        places = torch.arange(position, position + len(inputs_TD), device=student.device)
        positions = student.position_ids(places[None], query.prefix, scene)
        hidden_TD, _ = student.run_language_model(inputs_TD, positions, None, cache=cache)
        position += len(inputs_TD)
        answer.append(int(student.language_model.lm_head(hidden_TD[-1]).argmax()))
        if len(answer) == tokens:
            return answer
        inputs_TD = student.embed(torch.tensor(answer[-1:], device=student.device))


def measure(
    size: ModelSize,
    dtype: torch.dtype,
    frames: int,
    counts: Sequence[int],
    tokens: int,
    repeats: int,
) -> list[str]:
    """Return the report's lines."""
    device = choose_device()
    student, tokenizer = build(size, device, dtype)
    scene = make_scene(frames, device)
    queries = make_queries(max(counts), tokenizer)
    passes = TokenPasses(student)  # as a prediction's scenes share them

    def shared(count: int, length: int) -> list[list[int]]:
        session = SceneSession(student, tokenizer, scene, prompt="reference", passes=passes)
        session.decoding = Decoding(ends=frozenset())
        return session.generate(queries[:count], length)

    opened = SceneSession(student, tokenizer, scene, prompt="reference", passes=passes)
    opened.decoding = Decoding(ends=frozenset())

    def in_chat(count: int) -> list[list[int]]:
        return opened.generate(queries[:count], 1)

    def measure_alone() -> float:
        return seconds(lambda: one_at_a_time(student, scene, queries[0], tokens), repeats)

    first_alone = measure_alone()
    opening = seconds(
        lambda: SceneSession(student, tokenizer, scene, prompt="reference", passes=passes), repeats
    )
    times = []
    for count in counts:
        whole = seconds(partial(shared, count, tokens), repeats)
        first = seconds(partial(shared, count, 1), repeats)
        times.append((count, whole, first, seconds(partial(in_chat, count), repeats)))
    # Measured at both ends, as machines grow faster or slower while they run; the better counts.
    alone = min(first_alone, measure_alone())
    rows = []
    for count, whole, first, unqueued in times:
        step = (whole - first) / (tokens - 1)
        rows.append(
            f"| {count} | {whole:.3f} | {opening:.3f} | {first - opening:.3f} | {unqueued:.3f} "
            f"| {1000 * step:.2f} | {count / whole:.2f} | {count * alone / whole:.1f}x |"
        )
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    together = shared(max(counts), tokens)
    checked = range(0, len(queries), max(1, len(queries) // 8))
    equal = sum(together[n] == one_at_a_time(student, scene, queries[n], tokens) for n in checked)
    own = statistics.mean(len(query.input_ids) for query in queries)
    lines = [
        f"- machine: {device_name()}, torch {torch.__version__}; "
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        f"- model: {size}, {sum(p.numel() for p in student.parameters()) / 1e9:.2f} G parameters, "
        f"{str(dtype).removeprefix('torch.')}; {frames} "
        f"frames; questions of {own:.0f} own tokens, answers of {tokens} tokens; median of "
        f"{repeats} runs",
        f"- one at a time: {alone:.3f} s a question, {1 / alone:.2f} questions/s",
        f"- answers equal to one at a time, token for token: {equal} of {len(checked)} looked at",
    ]
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
        lines.append(f"- peak memory with {max(counts)} questions: {peak:.1f} GiB")
    header = (
        "| questions a scene | s a scene | of it: prefix | questions' prefill | after a prefix "
        "that is over | ms a token step | questions/s | over one at a time |"
    )
    return [*lines, "", header, "|---" * 8 + "|", *rows]


def main() -> None:
    """Run and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("tiny", "7b"), default="tiny")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--questions", type=int, nargs="+", default=[1, 8, 66])
    parser.add_argument("--tokens", type=int, default=16, help="of every answer, 2 or more")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the report to this file")
    arguments = parser.parse_args()
    lines = measure(
        arguments.size,
        getattr(torch, arguments.dtype),
        arguments.frames,
        arguments.questions,
        arguments.tokens,
        arguments.repeats,
    )
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
