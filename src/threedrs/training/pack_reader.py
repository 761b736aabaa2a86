"""What a run reads while it trains: the mix, and packs for the student, read ahead by loaders.

A pack costs one read of the scene store and, with a teacher, one of the feature store; its samples
share them. No pack is kept after it is handed over, however many scenes a run has, as 1,201 scenes
of ScanNet would take 49 GB. A loader keeps what is small, at most 300 MB: opened stores, tokens of
texts, and for another grid than LLaVA's what was counted from the pixels. Beside that it holds
which samples are packed together, 40 MB an epoch of 233,000 samples at K = 1. The loaders
of a rank hold at most workers x ``PREFETCH`` packs, beside the one in training. A pack of 32 frames
takes 41 MB, whatever its samples (14 MB of pixels, 26 MB of features, 1 MB of masks): 330 MB with 4
workers. Where there is a GPU, as much again may be page-locked copies on their way to it. All
processes of a rank share the mix.
"""

import signal
import time
import traceback
from array import array
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from threedrs.distributed.ranks import STOP_SIGNALS
from threedrs.errors import (
    DataError,
    MachineError,
    StoreError,
    ThreedrsError,
    one_line,
    user_message,
)
from threedrs.models.backbones.family import LLAVA_GRID, VisualGrid
from threedrs.models.packing import Pack
from threedrs.models.prompt import build_sample
from threedrs.models.scene_inputs import MOST_SCENES, read_scene
from threedrs.scannet.boxes import BoxSet, box_iou_NM
from threedrs.scenes.store import SceneStore
from threedrs.tasks.record import GROUND, Record
from threedrs.teachers.feature_store import FeatureStore
from threedrs.teachers.teacher_frames import OtherFrames
from threedrs.training.sampler import PackPlan

PREFETCH = 2  # packs that a loader holds
LEAST_IOU = 0.25  # of an object and the proposal that stands for it (`name_proposals`)
LOST = "DataLoader worker (pid"  # so begin torch's errors that say that a loader is gone
ENDING = 2.0  # seconds from the last byte of a killed process to the signal of its end


class RecordTable:
    """The records of a mix, in order, each made when it is asked for."""

    def __init__(self, lines: Iterable[tuple[str, Record]]) -> None:
        self.scenes: list[str] = []  # the scene of each record
        self.groups: list[str] = []  # its task group: questions, captions or grounding
        self.words: list[int] = []  # the words of its question and answer
        # Records as lines of one text, not as Python objects. A loader process is a fork and shares
        # what it only reads, but Python writes to an object whenever it refers to it: a list of
        # records would be copied into each loader bit by bit, 240 MB for the published mix.
        self._text, self._ends = bytearray(), array("q", [0])
        names: dict[str, str] = {}  # so that a scene's records share one string
        for line, record in lines:
            self.scenes.append(names.setdefault(record.scene, record.scene))
            self.groups.append(_task_group(record))
            self.words.append(len(record.human.split()) + len(record.answer.split()))
            self._text += line.encode()
            self._ends.append(len(self._text))

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Record:
        index = range(len(self))[index]  # raises IndexError, by which a loop over records ends
        line = self._text[self._ends[index] : self._ends[index + 1]].decode()
        return Record.from_line(line, f"record {index} of the mix")


def _task_group(record: Record) -> str:
    """Return the kind of a record's answer, by which the published training forms its batches."""
    # By the record alone: a benchmark's file also holds its metric, which must not make a trained
    # model stale.
    if record.answer == GROUND:
        return "grounding"
    return "questions" if record.box_input is None else "captions"


@dataclass(frozen=True, kw_only=True)
class PackReader:
    """Builds the packs of a run from its records and stores."""

    records: RecordTable | Sequence[Record]  # the training mix, in the order that pack plans index
    scenes: Path  # folder of the scene stores
    features: Mapping[str, Path]  # feature store of each scene; empty without a teacher
    boxes: str  # box set that the student sees, ``gt`` or ``pred``
    tokenizer: Any  # the student's
    label_chat_tokens: bool  # see ``build_sample``
    max_length: int  # the largest number of tokens of a pack
    grid: VisualGrid = LLAVA_GRID  # the student's visual tokens of a frame
    # What a teacher's features of other frames supervise (`matched_frames`).
    other_frames: OtherFrames = "by_frame"

    def read(self, plan: PackPlan) -> Pack:
        """Return the pack of ``plan``.

        Raises:
            ThreedrsError: a store or a record cannot be used, or the pack is too long.
        """
        records = [self.records[index] for index in plan.indices]
        path = self.scenes / f"{plan.scene}.zarr"
        metadata = path / "zarr.json"
        store = _opened(path, metadata.stat().st_mtime_ns if metadata.is_file() else 0)
        boxes = store.boxes(self.boxes)
        if self.boxes == "pred":
            records = name_proposals(records, store.boxes("gt"), boxes)
        ids, label = boxes.ids.tolist(), self.label_chat_tokens
        samples = tuple(
            build_sample(record, ids, self.tokenizer, label_chat_tokens=label) for record in records
        )
        teacher_VGGC, supervised_S = self._teacher(plan.scene, store.frame_ids)
        scene = read_scene(
            store, self.boxes, grid=self.grid, teacher_VGGC=teacher_VGGC, supervised_S=supervised_S
        )
        pack = Pack(scene=scene, samples=samples)
        if pack.tokens > self.max_length:
            longest = max(pack.samples, key=lambda sample: len(sample.input_ids))
            raise DataError(
                f"sample {longest.id}: its pack of {len(pack.samples)} samples holds {pack.tokens} "
                f"tokens, more than execution.max_length {self.max_length}; raise it, lower "
                "train.pack, or leave the sample out of the mix"
            )
        return pack

    def _teacher(
        self, scene: str, frame_ids: Sequence[int]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return `SceneInputs.teacher_VGGC` and `supervised_S`."""
        if not self.features:
            return None, None
        path = self.features[scene]  # `prepare` has looked for each scene of the mix
        store = FeatureStore.open(path)
        features_VGGC, supervised = store.supervision(scene, frame_ids, self.other_frames)
        if not supervised:
            return None, None
        if not np.isfinite(features_VGGC).all():
            raise StoreError(
                f"{path}: {scene} holds features that are not finite; delete the store and run "
                "`snakemake --cores all features`"
            )
        rows_S = torch.tensor(supervised) if len(supervised) < len(frame_ids) else None
        return torch.from_numpy(features_VGGC), rows_S


# To open a store parses the metadata of each of its arrays, which takes a third of a read. An
# opened one holds no array: all of ScanNet's are some 62 MB.
@lru_cache(maxsize=MOST_SCENES)
def _opened(path: Path, changed: int) -> SceneStore:
    """Open a scene store, or return it as it was opened before, if it is still the same one."""
    return SceneStore.open(path)


def name_proposals(records: Sequence[Record], true: BoxSet, proposals: BoxSet) -> list[Record]:
    """Return a scene's records with each object's id replaced by that of the proposal it matches.

    A run with ``boxes.train: pred`` sees detector ``proposals``, but annotations name objects of
    the mesh, the ``true`` boxes. An object without a proposal that overlaps it well is no target,
    and a sample without any target teaches that no box is meant.

    Raises:
        DataError: an object has no true box.
    """
    best: dict[int, int | None] = {}
    iou_NM = box_iou_NM(true.boxes, proposals.boxes)
    for object_id, iou_M in zip(true.ids, iou_NM, strict=True):
        # Below a quarter ScanRefer and Multi3DRefer count a proposal as another thing.
        found = len(iou_M) > 0 and iou_M.max() >= LEAST_IOU
        best[int(object_id)] = int(proposals.ids[iou_M.argmax()]) if found else None
    named = []
    for record in records:
        if record.object_ids is None:
            named.append(record)
            continue
        missing = [object_id for object_id in record.object_ids if object_id not in best]
        if missing:
            raise DataError(
                f"{record.id}: object {missing[0]} has no true box in {record.scene}; "
                "convert the annotations again with this data"
            )
        chosen = [best[object_id] for object_id in record.object_ids]
        ids = list(dict.fromkeys(number for number in chosen if number is not None))
        named.append(replace(record, object_ids=ids))
    return named


class _PackDataset(Dataset):
    """Packs in the order of ``plans``; an error is returned, not raised."""

    # A raised error would reach the training process wrapped in the loader's own traceback. That
    # would keep the loaders alive, which ignore what usually ends them, and the process would wait
    # for them for ever at its end.

    def __init__(self, reader: PackReader, plans: Sequence[PackPlan]) -> None:
        self.reader = reader
        self.plans = plans

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, position: int) -> Pack | Exception:
        try:
            return self.reader.read(self.plans[position])
        except Exception as error:  # a bug too has to reach the training process
            line = user_message(error)
            if line is not None:
                return ThreedrsError(line)
            return RuntimeError(f"a pack could not be read:\n{traceback.format_exc()}")


def _as_is(pack: Any) -> Any:
    return pack


def _ignore_stop_signals(worker: int) -> None:
    # Slurm signals every process of a job, but the training process decides when to stop, and still
    # needs its loaders for the packs of the step that it is in.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def load_packs(
    reader: PackReader, plans: Sequence[PackPlan], workers: int
) -> Generator[Pack, None, None]:
    """Yield the packs of ``plans`` in order, read ahead by ``workers`` processes or by this one.

    Close the generator (``contextlib.closing``) to end the processes.

    Raises:
        ThreedrsError: the first error of a pack that a user can put right.
        RuntimeError: a bug, with its traceback in the loader.
    """
    loader = DataLoader(
        _PackDataset(reader, plans),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        collate_fn=_as_is,  # a function of the module, as it may be sent to a spawned process
        worker_init_fn=_ignore_stop_signals,
        # A thread takes each pack over from its loader into page-locked memory, while the GPU
        # computes: handing over 41 MB takes 7 ms, and from ordinary memory the GPU waits for it.
        pin_memory=torch.cuda.is_available(),
        # Its own generator: a loader must not draw from the run's random state, or a resumed run
        # would differ from an uninterrupted one.
        generator=torch.Generator(),
    )
    for pack in loader:
        if isinstance(pack, Exception):
            raise pack
        yield pack


@contextmanager
def explain_lost_loader() -> Iterator[None]:
    """Raise MachineError where a loader process was killed, which torch reports at any line."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError):
            if not str(error).startswith(LOST):
                raise
        else:  # killed while it handed a pack over: torch has yet to hear of it, and raises then
            with suppress(RuntimeError):
                time.sleep(ENDING)
        raise MachineError(
            f"a loader process was lost ({one_line(error)}); if memory ran out, lower "
            "execution.workers or ask for more memory, and run the same command to go on"
        ) from error
