"""Where the user's files are: ScanNet's folder layout, relative to one data root."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from threedrs.errors import DataError
from threedrs.io.files import SCENE_NAME, check_scene_name, read_text

# The remedy for one scene, also in a published folder, which comes without scene lists.
LEAVE_OUT = (
    "leave the scene out of the list that data.splits names (where there is none, write one "
    "with the other scenes, a line each)"
)
SPLITS = ("train", "val", "test")
PREFIX = "scannet/"
"""What the field's files put before a scene's name."""
_LISTED_SCENE = re.compile(rb'"(?:scannet/)?(scene\d{4}_\d{2})"')


@dataclass(frozen=True, kw_only=True)
class ScanFiles:
    """Paths of one scan's files; whether they exist is for their readers to say.

    ``source`` names the one of ``sens`` and ``posed_images`` that frames come from. ``point_cloud``
    is the published one, or None where there is none.
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
    point_cloud: Path | None = None

    @property
    def frames(self) -> Path:
        """The file or folder that the frames are read from."""
        return self.sens if self.source == "sens" else self.posed_images

    def box_files(self, box_set: str) -> list[Path]:
        """Return the files that boxes of ``gt`` or ``pred`` are computed from, all of them."""
        vertices = self.point_cloud or self.mesh
        if box_set == "pred":
            return [vertices, self.proposals]
        return [vertices] if self.point_cloud else [vertices, self.segments, self.aggregation]


@dataclass(frozen=True, kw_only=True)
class DataLayout:
    """The data root and the places below it (defaults: the layout that the field uses).

    What only published data has is None where it is not used:
    ``candidates`` names EmbodiedScan's infos, ``point_clouds`` the folder of the splits' ``.pth``,
    ``selected_frames`` and ``voxels`` the files of that content. ``listings`` are a split's
    prepared files, which name its scenes where the list is missing.
    """

    root: Path
    source: str = "sens"
    scans: str = "scannet/scans"
    posed_images: str = "scannet/posed_images"
    candidates: str | None = None
    point_clouds: str | None = None
    selected_frames: str | None = None
    voxels: str | None = None
    masks: str = "scannet/mask"
    labels: str = "scannet/scannetv2-labels.combined.tsv"
    splits: str = "scannet/scannetv2_{split}.txt"
    benchmark: str = "benchmark"
    listings: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def scan(self, scene: str) -> ScanFiles:
        """Return the paths of ``scene``'s files."""
        return self.own_scan(check_scene_name(scene, "scene list"))

    def own_scan(self, scene: str) -> ScanFiles:
        """Return the paths of a scene that may have another name than ScanNet's."""
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
            point_cloud=self._point_cloud(scene),
        )

    def _point_cloud(self, scene: str) -> Path | None:
        if self.point_clouds is None:
            return None
        folder = self.root / self.point_clouds
        # A scene may stand in another split than in the scene lists.
        paths = (folder / split / f"{scene}.pth" for split in SPLITS)
        return next((path for path in paths if path.is_file()), None)

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

    def file(self, key: str) -> Path | None:
        """The file that an optional key (``selected_frames``, ``voxels``) names, if it is there."""
        name = getattr(self, key)
        path = self.root / name if name else None
        return path if path and path.is_file() else None

    def candidates_files(self) -> list[Path]:
        """EmbodiedScan's infos of all splits; a scene is looked up in their union."""
        named = [self.candidates_file(split) for split in SPLITS]
        return [path for path in named if path is not None]

    def cloud_folder(self, split: str) -> Path | None:
        """The folder of the point clouds of ``split``, or None where none are used."""
        return None if self.point_clouds is None else self.root / self.point_clouds / split

    def _scene_lists(self, split: str) -> list[Path]:
        """Return the list of ``split``, else its folder of point clouds, else prepared files."""
        path, folder = self.split_file(split), self.cloud_folder(split)
        if path.is_file():
            return [path]
        if folder is not None and folder.is_dir():
            return [folder]
        listings = (self.root / name for name in self.listings.get(split, ()))
        return [listing for listing in dict.fromkeys(listings) if listing.is_file()]

    def scene_list_source(self, split: str) -> str:
        """Return what says which scenes ``split`` has; where nothing does, the missing list."""
        found = self._scene_lists(split) or [self.split_file(split)]
        if found[0].is_dir():
            return f"{self.point_clouds}/{split}/"
        return ", ".join(path.name for path in found)

    def has_scenes(self, split: str) -> bool:
        """Whether anything says which scenes ``split`` has."""
        return bool(self._scene_lists(split))

    def scenes(self, split: str) -> list[str]:
        """Return the scenes of ``split``, in the order of its list.

        Without a list they are those of the split's folder of point clouds, else those that
        prepared boxes and records name, in alphabetical order.

        Raises:
            DataError: nothing says so, or the list holds a repeated or malformed name.
        """
        path = self.split_file(split)
        found = self._scene_lists(split) or [path]
        if found[0].is_dir():
            stems = (cloud.stem for cloud in found[0].glob("*.pth"))
            return sorted(stem for stem in stems if SCENE_NAME.fullmatch(stem))
        if found != [path]:
            # Not parsed as JSON: arrays of records take seconds, and their stage checks them.
            texts = (listing.read_bytes() for listing in found)
            names = {name for text in texts for name in _LISTED_SCENE.findall(text)}
            return sorted(name.decode() for name in names)
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
