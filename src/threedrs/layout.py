"""Where the user's files are: ScanNet's folder layout, relative to one data root."""

from dataclasses import dataclass
from pathlib import Path

from threedrs.errors import DataError
from threedrs.files import check_scene_name, read_text


@dataclass(frozen=True, kw_only=True)
class ScanFiles:
    """Paths of one scan's files; whether they exist is for their readers to say."""

    scene: str
    sens: Path
    mesh: Path
    segments: Path
    aggregation: Path
    meta: Path
    proposals: Path


@dataclass(frozen=True, kw_only=True)
class DataLayout:
    """The data root and the places below it (defaults: the layout that the field uses)."""

    root: Path
    scans: str = "scannet/scans"
    masks: str = "scannet/mask"
    labels: str = "scannet/scannetv2-labels.combined.tsv"
    splits: str = "scannet/scannetv2_{split}.txt"
    benchmark: str = "benchmark"

    def scan(self, scene: str) -> ScanFiles:
        """Return the paths of ``scene``'s files."""
        check_scene_name(scene, "scene list")
        folder = self.root / self.scans / scene
        return ScanFiles(
            scene=scene,
            sens=folder / f"{scene}.sens",
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
