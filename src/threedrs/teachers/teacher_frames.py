"""The frames that imported features are of, and those of the student's that they supervise.

A published feature file does not say which frames it was made from. Its script took V of them,
evenly spaced over all images of the scene's folder, those with a lost pose included, and that can
be computed again. If it gives the scene store's frames, the features are of these; if it gives
others, that is proven too, and `teacher.other_frames` says what they supervise. VGGT's features of
a frame depend on the other frames, so a list that is off by one is off everywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from threedrs.errors import ConfigError

OtherFrames = Literal["by_frame", "as_published"]


def folder_frames(folder: Path) -> list[int]:
    """Return the frame of each .jpg of an exported scan, by file name; none without a folder."""
    # Sorted as text, as the published script sorts them; five digits make it the order of frames.
    names = sorted(path.stem for path in folder.glob("*.jpg"))
    return [int(name) for name in names if name.isdecimal()]


def evenly_spaced(frames: Sequence[int], count: int) -> tuple[int, ...] | None:
    """Return ``count`` frames evenly spaced over ``frames``, truncated; None where there is none.

    This is the choice of the published feature scripts, over the images of a folder, and of their
    forks, over EmbodiedScan's list.
    """
    if not frames:
        return None
    return tuple(frames[index] for index in np.linspace(0, len(frames) - 1, count).astype(int))


def matched_frames(
    student: Sequence[int], teacher: Sequence[int], rule: OtherFrames
) -> list[tuple[int, int]]:
    """Return (index in the student's frames, index in the teacher's) of each supervised frame.

    By frame, these are the student's frames that the teacher saw too, each with its own features.
    As published, they are taken index by index, whatever the frames are.

    Raises:
        ConfigError: as_published, and the lists are not of one length.
    """
    if rule == "as_published":
        if len(student) != len(teacher):
            raise ConfigError(
                f"teacher.other_frames is as_published, but {len(student)} frames cannot take the "
                f"features of {len(teacher)}; set it to by_frame, or frames.count to {len(teacher)}"
            )
        return [(index, index) for index in range(len(student))]
    # A scan of few images lists some twice. The first of them stands for the frame, both times.
    first: dict[int, int] = {}
    for index, frame in enumerate(teacher):
        first.setdefault(frame, index)
    return [(index, first[frame]) for index, frame in enumerate(student) if frame in first]


@dataclass(frozen=True, kw_only=True)
class TeacherFrames:
    """The frames that one scene's features are of."""

    student: tuple[int, ...]  # the scene store's frames
    teacher: tuple[int, ...]  # the frames that the teacher saw
    proven: bool = True  # whether that is known, not assumed

    @classmethod
    def of_entry(cls, student: Sequence[int], entry: Mapping[str, Any]) -> "TeacherFrames":
        """Return the frames of a scene from its row of a feature store's manifest."""
        return cls(
            student=tuple(student),
            teacher=tuple(entry.get("teacher_frames", student)),
            proven=entry.get("frames_proven", True),
        )

    def note(self) -> str:
        """Return what a reader must know about the frames, in one clause."""
        if not self.proven:
            return "nothing says which frames the features are of; taken to be the scene store's"
        common = len(matched_frames(self.student, self.teacher, "by_frame"))
        return (
            f"the features are of other frames than the scene store's; {common} of its "
            f"{len(self.student)} are among them (teacher.other_frames)"
        )

    def to_entry(self) -> dict[str, Any]:
        """Return what of a manifest's row is out of the ordinary; usually nothing."""
        # Nothing where all is as it should be: a row that grew would make later stages stale.
        other = {"teacher_frames": list(self.teacher)} if self.teacher != self.student else {}
        return other | ({} if self.proven else {"frames_proven": False})


@dataclass(frozen=True, kw_only=True)
class FrameCounts:
    """How the frames of a run's scenes are supervised, for whoever reads its scores."""

    rule: str  # `teacher.other_frames`
    scenes: int  # of the mix
    other_frames: int  # scenes whose features are of other frames than the student's
    unproven: int  # scenes of whose features nothing says the frames; taken to be the student's
    unsupervised: int  # scenes without a common frame
    frames: int  # of all scenes
    frames_left_out: int  # of these, without features of their own, so in no 3D loss

    @classmethod
    def count(cls, scenes: Sequence[TeacherFrames], rule: OtherFrames) -> "FrameCounts":
        """Count the scenes and frames. Raises ConfigError as `matched_frames`."""
        supervised = [len(matched_frames(each.student, each.teacher, rule)) for each in scenes]
        frames = sum(len(each.student) for each in scenes)
        return cls(
            rule=rule,
            scenes=len(scenes),
            other_frames=sum(each.teacher != each.student for each in scenes),
            unproven=sum(not each.proven for each in scenes),
            unsupervised=supervised.count(0),
            frames=frames,
            frames_left_out=frames - sum(supervised),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the counts as `train.json` holds them."""
        return {**asdict(self), "notes": self.notes()}

    def notes(self) -> list[str]:
        """Return what a reader of the run's scores must know, a sentence each; usually nothing."""
        lines = []
        if self.other_frames and self.rule == "as_published":
            lines.append(
                f"As published, {self.other_frames} of {self.scenes} scenes are supervised by "
                "features of other frames than the student's (teacher.other_frames)."
            )
        elif self.other_frames:
            lines.append(
                f"The features of {self.other_frames} of {self.scenes} scenes are of other frames "
                f"than the student's. {self.frames_left_out} of {self.frames} frames are in no 3D "
                f"loss, and {self.unsupervised} scenes have no common frame."
            )
        if self.unproven:
            lines.append(
                f"Nothing says which frames the features of {self.unproven} of {self.scenes} "
                "scenes are of. They are taken to be the student's."
            )
        return lines
