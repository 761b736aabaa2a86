"""Where the user's files are: ScanNet's folder layout, relative to one data root."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from threedrs.config.section import Section
from threedrs.config.value_types import FilePath, OfSplit
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


class DataPlaces(Section):
    """Where the user's files are below one data root: these keys of the section `data`."""

    place = "data"
    root: FilePath
    """Folder of the data, laid out as docs/RUNNING.md shows. For your own copy of ScanNet write
    `data`."""
    source: Literal["sens", "posed_images"] = "sens"
    """Where frames come from. `sens` reads the .sens file of each scan, `posed_images` exported
    folders."""
    scans: str = "scannet/scans"
    """Folder of the scans, relative to `data.root` like the paths below."""
    posed_images: str = "scannet/posed_images"
    """Exported frames: `<scene>/00000.jpg`, `.png`, `.txt`, numbered by frame of the stream."""
    candidates: OfSplit | None = None
    """EmbodiedScan's infos, e.g. `embodiedscan/embodiedscan_infos_{split}.pkl`: a scene's candidate
    frames, axis alignment and depth intrinsic, looked up in all files of train, val and test that
    are there; null: every `frames.stride`-th frame is a candidate."""
    point_clouds: str | None = None
    """Published point clouds, `<split>/<scene>.pth` in this folder: vertices for masks and
    coverage, ground-truth boxes with object ids, in place of mesh and annotation; null: from the
    scans."""
    selected_frames: str | None = None
    """Published `scannet_select_frames.json`, the frames of the coverage strategies; null, and for
    scenes that it lacks: they are computed."""
    voxels: str | None = None
    """Published `pcd_discrete_0.1.pkl`, the voxels for coverage of scenes without a point cloud."""
    masks: str = "scannet/mask"
    """Detector proposals, one `<scene>.mask.npz` a scene."""
    labels: str = "scannet/scannetv2-labels.combined.tsv"
    """ScanNet's label table."""
    splits: OfSplit = "scannet/scannetv2_{split}.txt"
    """The scene list of each split. Where it is missing, the split's folder of `point_clouds` says
    which scenes there are, else the prepared boxes and records."""
    benchmark: str = "benchmark"
    """Folder of the benchmarks' annotation files."""


class DataLayout(DataPlaces):
    """The user's files, with those that are prepared and those that the run downloads."""

    boxes: dict[str, dict[str, str]] = Field(default={})
    """Split -> box set -> prepared file (`boxes.ready`), relative to the root."""
    records: dict[str, dict[str, str]] = Field(default={})
    """Split -> benchmark -> LLaVA-style array (`instructions.ready`), relative to the root."""
    arriving: frozenset[Path] = frozenset()
    """Files that the run downloads."""

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

    def is_there(self, path: Path) -> bool:
        """Whether a file is there, or arrives before it is needed."""
        return path.is_file() or path in self.arriving

    def prepared_boxes(self, split: str) -> dict[str, Path]:
        """Return box set -> its prepared file, for those of a split that are there or arrive."""
        named = {name: self.root / path for name, path in self.boxes.get(split, {}).items()}
        return {name: path for name, path in named.items() if self.is_there(path)}

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
        return None if self.candidates is None else self.root / self.candidates.format(split=split)

    def file(self, key: str) -> Path | None:
        """The file that an optional key (``selected_frames``, ``voxels``) names, if it is there."""
        name = getattr(self, key)
        path = self.root / name if name else None
        return path if path and path.is_file() else None

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
        arrays = [named for part, named in self.records.items() if scene_split(part) == split]
        names = [name for named in (self.boxes.get(split, {}), *arrays) for name in named.values()]
        listings = (self.root / name for name in dict.fromkeys(names))
        return [listing for listing in listings if listing.is_file()]

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
