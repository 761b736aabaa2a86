"""Packs for the student, read ahead by loader processes.

A pack costs one read of the scene store and, with a teacher, one of the feature store; its samples
share them. Nothing is kept after a pack is handed over, however many scenes a run has: the loaders
of a rank hold at most workers x ``PREFETCH`` packs, beside the one in training. A pack of 32 frames
takes 41 MB, whatever its samples (14 MB of pixels, 26 MB of features, 1 MB of masks): 330 MB with 4
workers. Where there is a GPU, as much again may be page-locked copies on their way to it. The mix
is shared by all processes of a rank (`threedrs.training.record_table`).
"""

import signal
import time
import traceback
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from threedrs.errors import DataError, MachineError, StoreError, ThreedrsError, readable
from threedrs.instructions.record import Record
from threedrs.models.grid import LLAVA_GRID, VisualGrid
from threedrs.models.prompt import build_sample
from threedrs.models.samples import Pack
from threedrs.models.scene_inputs import read_scene
from threedrs.scenes.store import SceneStore
from threedrs.teachers.store import FeatureStore
from threedrs.training.proposals import name_proposals
from threedrs.training.sampler import PackPlan

PREFETCH = 2
LOST = "DataLoader worker (pid"  # so begin torch's errors that say that a loader is gone
ENDING = 2.0  # seconds from the last byte of a killed process to the signal of its end


@dataclass(frozen=True, kw_only=True)
class PackReader:
    """Builds the packs of a run from its records and stores.

    Attributes:
        records: the training mix, in the order that pack plans index.
        scenes: folder of the scene stores.
        features: feature store of each scene; empty without a teacher.
        boxes: box set that the student sees, ``gt`` or ``pred``.
        tokenizer: the student's.
        label_chat_tokens: see ``build_sample``.
        max_length: most tokens of a pack.
        grid: the student's visual tokens of a frame.
    """

    records: Sequence[Record]
    scenes: Path
    features: Mapping[str, Path]
    boxes: str
    tokenizer: Any
    label_chat_tokens: bool
    max_length: int
    grid: VisualGrid = LLAVA_GRID

    def read(self, plan: PackPlan) -> Pack:
        """Return the pack of ``plan``.

        Raises:
            ThreedrsError: a store or a record cannot be used, or the pack is too long.
        """
        records = [self.records[index] for index in plan.indices]
        store = SceneStore.open(self.scenes / f"{plan.scene}.zarr")
        boxes = store.boxes(self.boxes)
        if self.boxes == "pred":
            records = name_proposals(records, store.boxes("gt"), boxes)
        samples = tuple(
            build_sample(
                record,
                [int(box_id) for box_id in boxes.ids],
                self.tokenizer,
                label_chat_tokens=self.label_chat_tokens,
            )
            for record in records
        )
        scene = read_scene(
            store,
            self.boxes,
            grid=self.grid,
            teacher_VGGC=self._teacher(plan.scene, store.frame_ids),
        )
        pack = Pack(scene=scene, samples=samples)
        self._check_length(pack)
        return pack

    def _check_length(self, pack: Pack) -> None:
        if pack.tokens > self.max_length:
            longest = max(pack.samples, key=lambda sample: len(sample.input_ids))
            raise DataError(
                f"sample {longest.id}: its pack of {len(pack.samples)} samples holds {pack.tokens} "
                f"tokens, more than train.max_length {self.max_length}; raise it, lower "
                "train.pack, or leave the sample out of the mix"
            )

    def _teacher(self, scene: str, frame_ids: Sequence[int]) -> torch.Tensor | None:
        if not self.features:
            return None
        if scene not in self.features:
            raise StoreError(f"{scene}: no feature store holds it; run the stage `features`")
        path = self.features[scene]
        store = FeatureStore.open(path)
        store.require_frame_ids(scene, frame_ids)
        features_VGGC = np.asarray(store.features(scene))
        if not np.isfinite(features_VGGC).all():
            raise StoreError(
                f"{path}: {scene} holds features that are not finite; remove the store and run "
                "the stage `features` again"
            )
        return torch.from_numpy(features_VGGC)


class _Bug(str):
    """The traceback of an error in a loader that no user can put right."""


class _PackDataset(Dataset):
    """Packs in the order of ``plans``; an error is returned, not raised.

    A raised one would reach the training process wrapped in the loader's own traceback. And that
    would keep alive the loaders, which ignore what usually ends them: the process would wait for
    them at its end, for ever.
    """

    def __init__(self, reader: PackReader, plans: Sequence[PackPlan]) -> None:
        self.reader = reader
        self.plans = plans

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, position: int) -> Pack | ThreedrsError | _Bug:
        try:
            return self.reader.read(self.plans[position])
        except Exception as error:
            line = readable(error)
            return _Bug(traceback.format_exc()) if line is None else ThreedrsError(line)


def _as_is(pack: Any) -> Any:
    return pack


def _ignore_stop_signals(worker: int) -> None:
    """Let the training process decide when to stop: Slurm signals every process of a job."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def load_packs(
    reader: PackReader, plans: Sequence[PackPlan], workers: int
) -> Generator[Pack, None, None]:
    """Yield the packs of ``plans`` in order, read ahead by ``workers`` processes (0: none).

    Close it (``contextlib.closing``) to end the processes.

    Raises:
        ThreedrsError: the first error of a pack, in the words of whoever found it.
        RuntimeError: a bug, with its traceback in the loader.
    """
    loader = DataLoader(
        _PackDataset(reader, plans),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        collate_fn=_as_is,
        worker_init_fn=_ignore_stop_signals,
        # A thread takes each pack over from its loader into page-locked memory, while the GPU
        # computes: handing over 41 MB takes 7 ms, and from ordinary memory the GPU waits for it.
        pin_memory=torch.cuda.is_available(),
        # Its own generator: a loader must not draw from the run's random state, or a resumed run
        # would differ from an uninterrupted one.
        generator=torch.Generator(),
    )
    for pack in loader:
        if isinstance(pack, ThreedrsError):
            raise pack
        if isinstance(pack, _Bug):
            raise RuntimeError(f"a pack could not be read:\n{pack}")
        yield pack


@contextmanager
def explain_lost_loader() -> Iterator[None]:
    """Raise MachineError where a loader process was killed; torch reports that at any point."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError):
            if not str(error).startswith(LOST):
                raise
        else:  # killed while it handed a pack over: torch has yet to hear of it, and raises then
            with suppress(RuntimeError):
                time.sleep(ENDING)
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise MachineError(
            f"a loader process was lost ({why}); if memory ran out, lower "
            "train.workers or ask for more memory, and run the same command to go on"
        ) from error
