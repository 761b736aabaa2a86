"""What a teacher is: how it is described, what it needs, and what its extractor returns.

A `Teacher` is a description that stands beside the code it describes and that
`threedrs.teachers.known_teachers` lists. The workflow reads it at every start, so a module that
defines one imports torch, transformers and zarr inside the functions that compute.

S frames, h w rows and columns of the stored grid, C channels.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from threedrs.teachers.feature_store import SceneOrigin
    from threedrs.teachers.teacher_frames import TeacherFrames

GRID = 14  # rows and columns of the pooled grid
Colour = tuple[float, float, float]  # red, green, blue
IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
LAST = "last"  # the tap that every teacher has: its last layer


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """What decides a teacher's features: the config section ``teacher``."""

    name: str  # a teacher of the registry, or ``package.module:NAME``
    weights: Path | None = None  # its checkpoint file, model folder or folder of npz files
    seed: int = 0  # of the -tiny teachers' random weights, and of ``random``'s features
    grid: int | str = GRID  # 14: pooled to 14x14; "full": the teacher's own grid
    # Folder of the scans' exported images, by which the frames of imported features are known.
    posed_images: Path | None = None
    # EmbodiedScan's lists, as rule candidates writes them; for the same.
    candidates: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """The size of a teacher's images."""

    width: int  # pixels
    patch: int  # pixels: rows and columns of a patch
    # True: squeezed to ``width`` x ``width``; False: the proportions are kept, the height rounded
    # to whole patches and cropped to ``width``.
    square: bool = False

    def grid(self, height: int) -> tuple[int, int]:
        """Return the rows and columns of patches of an image of ``height`` rows."""
        return height // self.patch, self.width // self.patch


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneFeatures:
    """The features of one scene."""

    origin: "SceneOrigin"  # the scene and what its features are computed from
    # Features by the place in the teacher that they are taken from, (S, h, w, C) float16, finite.
    # The store holds the tap `LAST`; others would be further arrays of its group.
    taps: Mapping[str, np.ndarray]
    input_size: tuple[int, int]  # height and width in pixels of the images that the teacher saw
    frames: "TeacherFrames | None" = None  # that the teacher saw; None: those of ``origin``


class SkippedSceneError(Exception):
    """The teacher has nothing for a scene, which is not a fault; says why in one line."""


class FeatureExtractor(Protocol):
    """An opened teacher: turns scene stores into features."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """JSON values that, beside weights and grid, decide the features."""
        ...

    def identify(self, scene: str) -> str:
        """Return the SHA-256 of the weights (or files) that the scene's features come from.

        Raises:
            SkippedSceneError: the teacher has nothing for this scene.
            ThreedrsError: the weights are missing or unreadable.
        """
        ...

    def features(
        self, due: Mapping[Path, "SceneOrigin"], *, grid: int | str
    ) -> Generator[SceneFeatures, None, None]:
        """Yield the features of each scene store of ``due``, in its order.

        Raises:
            ThreedrsError: a scene cannot be read or computed; names it.
        """
        ...


# A published feature file bears the name of its teacher, in a folder of the scene's name.
FEATURE_FILES = ("vggt", "flare", "dinov2", "siglip2")


def scene_files(folder: Path, scene: str) -> list[Path]:
    """Return the feature files of a scene that there are; one that can be used is alone."""
    names = (f"{scene}.npz", *(f"{scene}/{name}.npz" for name in FEATURE_FILES))
    return [file for name in names if (file := folder / name).is_file()]


def model_files(folder: Path) -> list[Path]:
    """Return the files of weights in a model folder."""
    # Of a folder that has both kinds, transformers reads safetensors.
    found = sorted([*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")])
    return found or sorted(folder.glob("pytorch_model.bin"))


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What ``teacher.weights`` must be."""

    # "file"; "scenes", a folder of a feature file a scene (`scene_files`); "model", a folder in the
    # Hugging Face Hub's layout.
    kind: Literal["file", "scenes", "model"]
    what: str | None = None  # names the path to set, for an error; None: it need not be set
    remedy: str = "docs/TEACHERS.md says more"  # what to do where the path is missing

    def problem(self, teacher: str, path: Path | None) -> str | None:
        """Return what is wrong with ``path`` in one line, or None."""
        if path is None:
            needs = f"teacher {teacher} needs teacher.weights, {self.what}; {self.remedy}"
            return None if self.what is None else needs
        if path.is_file() if self.kind == "file" else path.is_dir():
            return None
        expected = "file" if self.kind == "file" else "folder"
        return f"teacher.weights: {path} is not a {expected}; {self.remedy}"

    def files(self, path: Path, scenes: Sequence[str]) -> list[Path]:
        """Return the files at ``path`` that decide the features of ``scenes``."""
        if self.kind == "file":
            return [path]
        if self.kind == "scenes":
            return [file for scene in scenes for file in scene_files(path, scene)]
        return [file for file in (path / "config.json", *model_files(path)) if file.is_file()]


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A teacher's description."""

    name: str  # as the configuration has it
    description: str  # for people
    # C of each tap of the published checkpoint; None: known once features are there.
    channels: int | None
    # Returns the extractor without reading weights, whose path has been looked at (`Weights`). The
    # function and what it mentions count as the code that makes the features.
    open: Callable[[TeacherSettings], FeatureExtractor]
    # What a job of the feature stage asks for: GPUs, threads, memory in MB, run time in minutes.
    needs: Mapping[str, int]
    weights: Weights | None = None  # what ``teacher.weights`` must be; None: it is not used


def job_needs(*, gpu: int = 1, threads: int = 1, mem_mb: int, runtime: int) -> dict[str, int]:
    """Return what a job asks for; see `Teacher.needs`."""
    return {"gpu": gpu, "threads": threads, "mem_mb": mem_mb, "runtime": runtime}


def shorten(values: Sequence[int]) -> str:
    """Return frame ids for an error line: the first six, and how many there are."""
    shown = ", ".join(str(value) for value in values[:6])
    return f"[{shown}{', ...' if len(values) > 6 else ''}] ({len(values)})"
