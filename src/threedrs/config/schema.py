"""Every key of the configuration, once: its type, its choices, its default and what it means.

The defaults are those of config/config.yaml, the demo. `python -m threedrs.config.reference` writes
from here the JSON Schema that editors use and the reference page in docs/. Errors, the nearest
valid key among them, are worded in `threedrs.config.section`. Nothing here imports torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Discriminator, Field, Tag

from threedrs.config.section import Section
from threedrs.config.value_types import (
    FilePath,
    Fraction,
    KeptLayers,
    Layer,
    NaturalFloat,
    NaturalInt,
    OfBenchmark,
    OfSplitAndSet,
    OneOf,
    PositiveFloat,
    PositiveInt,
    Text,
    in_order_of,
    unique,
)
from threedrs.inputs.download import Download
from threedrs.models.backbones.known_backbones import backbone_names
from threedrs.scannet.excluded_scans import BadScenePolicy
from threedrs.scannet.layout import DataPlaces
from threedrs.tasks.registry import TASKS
from threedrs.teachers.known_teachers import IMPORT_PATH, NO_TEACHER, TEACHERS
from threedrs.teachers.teacher_frames import OtherFrames

BoxSet = Literal["gt", "pred"]
Attention = Literal["auto", "sdpa", "flash"]
CoordinateDtype = Literal["float32", "bfloat16", "float16"]
InvalidDepth = Literal["reference", "ignore"]
ModelSize = Literal["tiny", "mini", "small", "7b"]
Prompt = Literal["reference", "as_trained"]
Decoding = Literal["greedy", "reference"]
Control = Literal["text_only", "other_room"]
Tunable = Literal["vision_tower", "projector", "language_model", "heads"]
LoraTarget = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# Whose names are registered where they are defined, in other packages too.
ModelName = Annotated[str, OneOf(backbone_names)]
TeacherName = Annotated[str, OneOf(lambda: (*TEACHERS, NO_TEACHER), IMPORT_PATH.pattern)]
Benchmark = Annotated[str, OneOf(lambda: tuple(TASKS))]
TUNABLE = get_args(Tunable)
LORA_TARGETS = get_args(LoraTarget)  # the linear layers of a language-model layer

Benchmarks = Annotated[
    tuple[Benchmark, ...], Field(strict=False, min_length=1), AfterValidator(unique)
]
RunName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
# A hyphen parts split and number in the name of a shard.
SplitName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_]*$")]
MixName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_-]*$")]
_PATH_OR_MAPPING = Discriminator(
    lambda value: "(mapping)" if isinstance(value, Mapping) else "(path)"
)
# The teacher's weights: one path for all runs, or teacher -> path.
Weights = Annotated[
    Annotated[Text, Tag("(path)")] | Annotated[dict[TeacherName, Text], Tag("(mapping)")],
    _PATH_OR_MAPPING,
]
# One array of all benchmarks, or a pattern or a mapping to one of each.
Arrays = Annotated[
    Annotated[OfBenchmark, Tag("(path)")]
    | Annotated[dict[Benchmark, OfBenchmark], Tag("(mapping)")],
    _PATH_OR_MAPPING,
]


class Demo(Section):
    """The generated demo data."""

    scenes: Annotated[int, Field(ge=2, le=10000)] = 14
    """Rooms to generate. Three of seven of them are val, at most 40."""
    seed: NaturalInt = 8
    """Seed of the generator. The demo's student was trained on rooms of seed 7."""
    frames: Annotated[int, Field(ge=4)] = 104
    """Frames of each scan's stream. Fewer than 10 do not show all furniture."""
    rounds: PositiveInt = 1
    """Times the usual 46 descriptions and questions a scene."""
    things: bool = False
    """Whether training rooms also have descriptions by colour alone ("the red thing in the room"),
    which only a student that sees colours can find."""


class Captures(Section):
    """Own captures as a split of their own, beside ScanNet's (docs/OWN_CAPTURES.md)."""

    captures: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]
    """Captures below `data.root`, or patterns such as `captures/*`: folders of posed RGB-D images,
    .sens files, and stores (.zarr) that `threedrs scene build` made. The name of each is its
    scene's."""
    questions: Text | None = None
    """What every run is asked: a file below `data.root` with a JSON object a line, such as
    {"scene": "kitchen", "question": "What is on the table?"}."""


class Data(BadScenePolicy, DataPlaces):
    """Where the data is, and what happens with scans that cannot be used."""

    root: FilePath = Path("results/demo")
    """Folder of the data, laid out as docs/RUNNING.md shows. For your own copy of ScanNet write
    `data`, and `demo: null`."""
    demo: Demo | None = Demo()
    """The demo data to generate under `data.root`. With null the root is yours and only read."""
    scenes_per_shard: PositiveInt = 6
    """Scenes of a job of the scene stage. At full scale 50 or so are good."""
    scenes: dict[SplitName, Captures] = Field(default={})
    """Name of a split -> own captures, for which scene stores are made."""


class Frames(Section):
    """Which frames of a scan a scene store holds."""

    place = "frames"
    stride: PositiveInt = 10
    """Every stride-th frame of the stream is a candidate."""
    strategy: Literal["uniform", "coverage", "coverage90", "coverage95"] = "uniform"
    """`uniform` takes frames that are evenly spaced over the candidates, `coverage` those that see
    most of the mesh. `coverage90` and `coverage95` take as many as see 90 or 95 % of what all see,
    so V differs by scene."""
    count: Annotated[int, Field(ge=1, le=1024)] = 8
    """Frames of a scene (V), with coverage90 and coverage95 the most; the paper uses 32."""
    stop_at_count: bool = True
    """coverage90 and coverage95 stop at `count`, as published; false: they take as many frames as
    their share needs."""


class Geometry(Section):
    """How depth and coordinates count."""

    invalid_depth: InvalidDepth = "reference"
    """With `reference` depth 0 enters averages as the camera centre, as published. With `ignore` it
    does not count in averages and masks."""
    coordinate_dtype: CoordinateDtype = "float32"
    """Precision of the position embedding alone, as masks stay exact. Published checkpoints were
    trained with bfloat16 and evaluated with float16."""


class Boxes(Section):
    """Which boxes the objects have."""

    train: BoxSet = "gt"
    """Boxes of training. `gt` is ground truth from the annotated mesh. `pred` are detector
    proposals, of which the best one above IoU 0.25 stands for an object."""
    eval: BoxSet = "pred"
    """Candidates of grounding in evaluation. Scan2Cap always describes a proposal."""
    ready: OfSplitAndSet | None = None
    """Prepared box files under `data.root`, e.g. `metadata/scannet_{split}_{set}_box.json` (set:
    gt, pred; scene -> list of [cx, cy, cz, dx, dy, dz]). Each file may be missing. What scenes lack
    there comes from point cloud or scan and from the proposals, as all does with null."""


class Caps(Section):
    """Limits on a mix."""

    max_per_scene: PositiveInt | None = None
    """Most records of a scene."""
    max_per_answer: PositiveInt | None = None
    """Most records with the same answer, within a benchmark."""
    max_per_object: PositiveInt | None = None
    """Most records about the same object."""


class Mix(Section):
    """How a training mix is drawn. No record is repeated before its source is used up."""

    balance: Literal["all", "sampling", "temperature", "weights"]
    """`all` takes everything once, as in the paper. `sampling` takes of each benchmark what
    `sampling` says. With `temperature` a benchmark of n records gets a share ~ n^(1/temperature),
    with `weights` the share in `weights`."""
    seed: NaturalInt = 0
    """Seed of every random choice."""
    matching: Text | None = None
    """A regular expression. Only records enter the mix in which it is found, the question with the
    answer on a line below."""
    sampling: dict[Benchmark, str] = Field(default={}, min_length=1)
    """`all`, `first:N`, `end:N` or `random:N` of a benchmark. N may be a percentage, which is
    rounded up. A benchmark that is not named gives all."""
    temperature: PositiveFloat | None = None
    """1 keeps the proportions of the benchmarks, and larger values level them."""
    weights: dict[Benchmark, PositiveFloat] = Field(default={}, min_length=1)
    """Relative share of each benchmark. A benchmark that is not named gives nothing."""
    size: PositiveInt | None = None
    """Records of the mix, with temperature and weights."""
    caps: Caps = Caps()


class Instructions(Section):
    """From annotation files to the records that the runs train on."""

    benchmarks: Benchmarks = tuple(TASKS)
    """Benchmarks whose training records the mixes are drawn from."""
    ready: dict[Literal["train", "val", "test"], Arrays | None] = Field(default={})
    """LLaVA-style arrays under `data.root` to take instead of converting, such as the published
    ones: split -> one file, a pattern with `{benchmark}`, or {BENCHMARK: processed/FILE.json, ...}.
    Benchmarks without one are converted."""
    on_reject: Literal["report", "fail"] = "report"
    """`report` lists rows that cannot be converted beside the output, `fail` stops at the first."""
    max_reject_fraction: Fraction = 0.01
    """More rejected rows than this fraction of a file stop the run."""
    mixes: dict[MixName, Mix] = Field(default={"full": Mix(balance="all")}, min_length=1)
    """Name -> how that training mix is drawn."""


class Teacher(Section):
    """The frozen model that supervises the visual tokens."""

    place = "teacher"
    name: TeacherName = "vggt-tiny"
    """The teacher. docs/TEACHERS.md describes each; `none` is no supervision. The -tiny ones have
    small seeded random weights, for the demo and tests. A teacher outside the package is named by
    its import path, package.module:NAME."""
    weights: Weights | None = None
    """For vggt model.pt or model.safetensors. For dinov2, siglip2 and mae a model folder, or null
    for the one of the Hub. For import a folder of `<scene>/vggt.npz` or `<scene>.npz`. Where runs
    use several teachers write {teacher: path, ...}. A path that is not there is looked for under
    `data.root`."""
    seed: NaturalInt = 0
    """Seed of the random weights of the -tiny teachers, and of the features of `random`."""
    grid: Literal[14, "full"] = 14
    """With 14 features are pooled to 14x14 when extracted. `full` keeps the grid of the teacher."""
    other_frames: OtherFrames = "by_frame"
    """What imported features of other frames than the student's supervise. With `by_frame` each
    frame that the teacher saw too is supervised by its own features, and no other frame is. With
    `as_published` frame i is supervised by frame i of the teacher, whatever it shows."""
    scenes_per_shard: PositiveInt = 6
    """Scenes of a job of the feature stage, which loads the teacher once."""


class SupervisionSettings(Section):
    """The 3D representation loss."""

    place = "supervision"
    weight: NaturalFloat = 1.0
    """Weight of the 3D loss, which is added to the text and the grounding loss."""
    loss: Literal["l2", "cosine", "both"] = "l2"
    """Distance of normalised features, one minus their cosine, or the sum of both."""
    layer: Layer = "last"
    """Hidden states that are supervised. `last` are those after the final norm; an index names a
    layer of the language model, from 0 on."""


class Model(Section):
    """The student."""

    place = "model"
    name: ModelName = "qwen2-vl"
    """The family of the multimodal language model."""
    size: ModelSize = "mini"
    """`mini` (8 M parameters) is that of the demo's student. With `path: null` it starts from
    seeded random weights, as `tiny` (for tests) and `small` (40 M) do, to be trained from scratch
    on a GPU (config/demo_student.yaml, config/small.yaml). `7b` needs `model.path`."""
    path: FilePath | None = Path("models/demo_student")
    """Folder of the pretrained checkpoint in its family's published layout; where it is not below
    the working folder, it is looked for below `data.root` and beside the code."""
    grid: PositiveInt | None = None
    """Visual tokens a side of a frame; 7 (qwen2-vl only) is a quarter of the tokens. With null it
    is that of a trained checkpoint in `model.path`, or else 14."""
    attention: Attention = "auto"
    """Attention of packs. `auto` is the fastest measured, sdpa; `flash` needs flash-attn. A sample
    alone is plain causal attention, for which the kernels of torch serve in any case."""
    random_weights: bool = False
    """Build size 7b without a checkpoint, to measure speed and memory."""


class LoraSettings(Section):
    """Low-rank adapters on linear layers of the language model."""

    place = "train.lora"
    rank: PositiveInt
    """Rank of the two matrices, r."""
    alpha: PositiveFloat
    """Their product counts alpha / r times."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout of what enters the adapters in training."""
    targets: Annotated[
        tuple[LoraTarget, ...],
        Field(strict=False, min_length=1),
        AfterValidator(in_order_of(LORA_TARGETS)),
    ] = LORA_TARGETS
    """Layers that get adapters."""


class Train(Section):
    """The recipe of training: every key shapes the trained weights or what is logged."""

    place = "train"
    seed: NaturalInt = 42
    """Seed of the new parameters and of the order of samples."""
    mix: str = "full"
    """The training mix, one of `instructions.mixes`."""
    epochs: PositiveInt = 1
    """Passes over the mix, one as in the paper."""
    max_steps: PositiveInt | None = None
    """Stop after this many optimizer steps. With null epochs are trained whole."""
    global_batch: PositiveInt = 8
    """Samples of an optimizer step, whatever the packing and the number of GPUs."""
    pack: PositiveInt = 8
    """Samples of one scene that share its visual tokens (K). The paper has 1."""
    batches: Literal["mixed", "task_groups"] = "mixed"
    """With `mixed` a step takes any samples. With `task_groups`, as published, it takes samples of
    one kind (questions, captions or grounding), the longest texts first, and the last step of each
    kind is dropped."""
    drop_last: bool = False
    """Drop the last, short batch (of mixed batches)."""
    learning_rate: PositiveFloat = 3e-5
    """Peak learning rate of all but the vision tower."""
    learning_rate_vision_tower: PositiveFloat = 3e-5
    """Peak learning rate of the vision tower."""
    weight_decay: NaturalFloat = 0.0
    """Decoupled weight decay (AdamW)."""
    warmup_fraction: Fraction = 0.03
    """Fraction of all steps in which the learning rate rises; a cosine to 0 follows."""
    gradient_clip: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of weights and activations."""
    tunable: Annotated[
        tuple[Tunable, ...], Field(strict=False, min_length=1), AfterValidator(in_order_of(TUNABLE))
    ] = TUNABLE
    """Parts of the student that are trained."""
    lora: LoraSettings | None = None
    """With {rank: 16, alpha: 32, dropout: 0.0, targets: [q_proj, v_proj]} only adapters of the
    language model are trained, on these layers. Where no layers are named, all seven get adapters.
    The model is an adapter then."""
    label_chat_tokens: bool = False
    """Also train on chat tokens and newlines, as published. They have little to learn, and the loss
    is a mean over them and the answer's tokens."""
    eval_every: PositiveInt | None = None
    """Optimizer steps between evaluations on the way. With null there are none."""
    eval_samples: PositiveInt = 32
    """Questions of each benchmark in such an evaluation, its first ones."""


class WandbSettings(Section):
    """Where the rows of the log go beside log.jsonl."""

    place = "execution.wandb"
    project: Text
    """Project in W&B."""
    entity: str | None = None
    """User or team. With null it is the default of the user."""
    mode: Literal["online", "offline"] = "online"
    """`offline` writes into the folder of the run, for `wandb sync`."""


class Execution(Section):
    """How training is carried out. No key changes a result, and none makes one stale."""

    place = "execution"
    deepspeed: FilePath = Path("config/deepspeed/zero2.json")
    """File of DeepSpeed for ZeRO stage 2 or 3, with or without offload (config/deepspeed/). Of one
    with stage 2 and without offload, a run on one GPU uses no other key."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass. It is slower by a quarter and takes far less
    memory."""
    kept_layers: KeptLayers = "auto"
    """Layers that keep their activations all the same, from the last of the language model (28 at
    7B, 1.0 GB each at 32 frames) back into the vision tower (26 or 32 of 0.8 or 1.0 GB): faster.
    With `auto` as many as the memory of the GPUs has room for, on a CPU none. Jobs that share a GPU
    each take what is free at their start, so set a number there."""
    record_passes: bool = False
    """Replay forward and backward passes as CUDA graphs, for a small student on one GPU, which
    waits for the host to launch its kernels. Sums are added in another order. Nothing is recorded
    on a CPU or on several GPUs, nor with LoRA's dropout, ZeRO-3, offload or
    gradient_checkpointing."""
    max_length: PositiveInt = 32768
    """Tokens of a pack. A longer one is an error."""
    save_every: PositiveInt = 50
    """Optimizer steps between checkpoints."""
    keep: PositiveInt = 2
    """Newest checkpoints that are kept."""
    log_every: PositiveInt = 5
    """Optimizer steps between rows of log.jsonl."""
    workers: NaturalInt = 1
    """Loader processes of a rank."""
    wandb: WandbSettings | None = None
    """{project: 3drs, entity: null, mode: online}: rows also go to Weights & Biases
    (`pip install -e '.[wandb]'`)."""


class RunTeacher(Section):
    """What a run may change of the teacher."""

    name: TeacherName = "none"
    """The teacher of the run; `none` is no supervision."""


INITIAL = "initial"  # as a run's checkpoint


class Run(Section):
    """An experiment run: what differs from the sections of the same names."""

    extends: str | None = None
    """Another run, whose changes this one takes over and adds its own to."""
    checkpoint: Text | None = None
    """A model folder to evaluate as it is, published or trained; the run is not trained. initial:
    the model as training would start. Without a grounding head grounding is not answered."""
    teacher: RunTeacher = RunTeacher()
    supervision: SupervisionSettings = SupervisionSettings()
    model: Model = Model()
    train: Train = Train()
    execution: Execution = Execution()


class Eval(Section):
    """How the trained models are asked and scored."""

    benchmarks: Benchmarks = tuple(TASKS)
    """Benchmarks that the runs are asked. They are not part of training."""
    prompt: Prompt = "as_trained"
    """`as_trained` has the instruction sentence of training. `reference` has not, as published, and
    a small student then answers worse."""
    decoding: Decoding = "greedy"
    """greedy: the likeliest token, up to `<|im_end|>`; reference, as published: the same after the
    checkpoint's generation_config.json (penalty on the answer's tokens, every end token)."""
    max_new_tokens: PositiveInt = 512
    """Longest answer, in tokens; with `decoding: reference` the checkpoint may say less."""
    limit: PositiveInt | None = None
    """Ask the first questions of each benchmark only, to try things out: no scores of a benchmark,
    and marked so wherever they stand; null: all."""
    controls: Annotated[tuple[Control, ...], Field(strict=False), AfterValidator(unique)] = ()
    """Asks each run the questions with answers in words again, to see how much of a score comes
    from looking. text_only: without images; other_room: with the images of another room."""
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    """Resamples for the 95 % intervals, scenes as clusters."""


class Report(Section):
    """What the report page shows."""

    title: str = "3DRS on the demo data"
    """Title of the page."""
    baseline: str = "baseline"
    """The run that others are compared with."""


class Configuration(Section):
    """The whole configuration."""

    data: Data = Data()
    frames: Frames = Frames()
    geometry: Geometry = Geometry()
    boxes: Boxes = Boxes()
    instructions: Instructions = Instructions()
    teacher: Teacher = Teacher()
    supervision: SupervisionSettings = SupervisionSettings()
    model: Model = Model()
    train: Train = Train()
    execution: Execution = Execution()
    runs: dict[RunName, Run | None] = Field(
        default={"3drs": Run(), "baseline": Run(teacher=RunTeacher(name="none"))}, min_length=1
    )
    """Name of an experiment run -> what it changes. With null a run is switched off."""
    eval: Eval = Eval()
    report: Report = Report()
    download: tuple[Download, ...] = Field(default=(), strict=False)
    """Files to fetch. They arrive before what needs them."""
