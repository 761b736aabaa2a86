"""Where the user's files are: ScanNet's folder layout, relative to one data root."""

from dataclasses import dataclass
from pathlib import Path

from threedrs.errors import ConfigError, DataError
from threedrs.io.files import check_scene_name, read_text

FRAME_SOURCES = ("sens", "posed_images")


@dataclass(frozen=True, kw_only=True)
class ScanFiles:
    """Paths of one scan's files; whether they exist is for their readers to say.

    ``source``, one of `FRAME_SOURCES`, says whether frames come from ``sens`` or from the folder
    ``posed_images``.
    """

    scene: str
    source: str
    sens: Path
    posed_images: Path
    mesh: Path
    segments: Path
    aggregation: Path
    meta: Path
    proposals: Path

    @property
    def frames(self) -> Path:
        """The file or folder that the frames are read from."""
        return self.sens if self.source == "sens" else self.posed_images


@dataclass(frozen=True, kw_only=True)
class DataLayout:
    """The data root and the places below it (defaults: the layout that the field uses).

    ``source`` is one of `FRAME_SOURCES`; ``candidates`` names EmbodiedScan's infos, or is None.
    """

    root: Path
    source: str = "sens"
    scans: str = "scannet/scans"
    posed_images: str = "scannet/posed_images"
    candidates: str | None = None
    masks: str = "scannet/mask"
    labels: str = "scannet/scannetv2-labels.combined.tsv"
    splits: str = "scannet/scannetv2_{split}.txt"
    benchmark: str = "benchmark"

    def __post_init__(self) -> None:
        if self.source not in FRAME_SOURCES:
            raise ConfigError(
                f"data.source: {self.source!r} is not known; choose one of "
                f"{', '.join(FRAME_SOURCES)}"
            )

    def scan(self, scene: str) -> ScanFiles:
        """Return the paths of ``scene``'s files."""
        check_scene_name(scene, "scene list")
        folder = self.root / self.scans / scene
        return ScanFiles(
            scene=scene,
            source=self.source,
            sens=folder / f"{scene}.sens",
            posed_images=self.root / self.posed_images / scene,
            mesh=folder / f"{scene}_vh_clean_2.ply",
            segments=folder / f"{scene}_vh_clean_2.0.010000.segs.json",
            aggregation=folder / f"{scene}.aggregation.json",
            meta=folder / f"{scene}.txt",
            proposals=self.root / self.masks / f"{scene}.mask.npz",
        )

    @property
    def labels_file(self) -> Path:
        """The label table (tab separated, one row a raw category)."""
        return self.root / self.labels

    @property
    def benchmark_folder(self) -> Path:
        """The folder that holds one folder of annotations a benchmark."""
        return self.root / self.benchmark

    def split_file(self, split: str) -> Path:
        """The scene list of ``split`` (train, val or test)."""
        return self.root / self.splits.format(split=split)

    def candidates_file(self, split: str) -> Path | None:
        """EmbodiedScan's infos of ``split``: its image lists are the candidate frames. Or None."""
        if self.candidates is None:
            return None
        return self.root / self.candidates.format(split=split)

    def scenes(self, split: str) -> list[str]:
        """Return the scenes of ``split``, in the file's order.

        Raises:
            DataError: the list is missing, or holds a repeated or malformed name.
        """
        path = self.split_file(split)
        scenes = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        for number, scene in enumerate(scenes, start=1):
            check_scene_name(scene, f"{path}: line {number}")
        if len(set(scenes)) != len(scenes):
            repeated = next(scene for scene in scenes if scenes.count(scene) > 1)
            raise DataError(f"{path}: {repeated} stands more than once; keep one line a scene")
        return scenes


def scene_split(split: str) -> str:
    """Return the scene list of a benchmark's split: train, or val, which SQA3D's test is of too."""
    return "train" if split == "train" else "val"
