"""What the converters may ask about scenes: which there are, and the boxes of their objects.

Boxes are given, or read from a scene's scan when a row first asks for them. That takes about a
second, for the mesh.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from threedrs.errors import DataError, ThreedrsError
from threedrs.io.files import SCENE_NAME
from threedrs.scannet.layout import DataLayout, scene_split
from threedrs.tasks.annotation_rows import (
    MALFORMED,
    NO_BOX,
    SCENE_MISSING,
    SCENE_UNREADABLE,
    RowError,
)

if TYPE_CHECKING:
    from threedrs.scannet.boxes import BoxSet


class SceneBoxes:
    """The scenes of a split and the boxes of their objects.

    ``boxes`` are scene -> {"gt": BoxSet, "pred": BoxSet}; None: computed from the layout's scans.
    Scenes of ``left_out`` (scene -> reason) have scans that cannot be used and so no boxes. The
    zeros given for them only serve to count the records that they would have had.
    """

    def __init__(
        self,
        layout: DataLayout,
        split: str,
        boxes: "Mapping[str, Mapping[str, BoxSet]] | None",
        left_out: Mapping[str, str] | None = None,
    ) -> None:
        self.left_out = left_out or {}
        self._layout = layout
        self._given = boxes
        self._scans = layout.root / layout.scans
        self._split = scene_split(split)
        self._known = self._known_scenes()
        self._cache: dict[tuple[str, str], BoxSet | RowError] = {}

    def _known_scenes(self) -> set[str] | None:
        """Return the split's scenes, those with a scan if boxes come from there; None: unknown."""
        listed = None
        if self._layout.has_scenes(self._split):
            listed = set(self._layout.scenes(self._split))
        # Given boxes may be of point clouds or prepared files: what scans there are does not count.
        if self._given is not None or not self._scans.is_dir():
            return listed
        scans = {path.name for path in self._scans.iterdir() if path.is_dir()}
        return scans if listed is None else scans & listed

    def check_scene(self, scene: str) -> str:
        """Return ``scene``; where nothing lists the scenes every scene name will do.

        Raises:
            RowError: it is not a scene name, has no scan, or does not stand in the split's list.
        """
        if SCENE_NAME.fullmatch(scene) is None:
            raise RowError(MALFORMED, f"scene_id is not a scene name: {scene!r}")
        if self._known is not None and scene not in self._known:
            name = self._layout.scene_list_source(self._split)
            raise RowError(SCENE_MISSING, f"{scene} has no scan or is not in {name}")
        return scene

    def ground_truth(self, scene: str, object_ids: list[int]) -> list[list[float]]:
        """Return each object's ground-truth box (centre, size; world frame, metres).

        Raises:
            RowError: the scene has no boxes, or an object is not among them.
            DataError: there is nothing to take boxes from.
        """
        if scene in self.left_out:
            return [[0.0] * 6 for _ in object_ids]
        box_set = self._boxes(scene, "gt")
        rows = {int(object_id): row for row, object_id in enumerate(box_set.ids)}
        for object_id in object_ids:
            if object_id not in rows:
                raise RowError(NO_BOX, f"object {object_id} of {scene} has no ground-truth box")
        return [box_set.numbers(rows[object_id]) for object_id in object_ids]

    def best_detector_box(self, scene: str, box: list[float], minimum: float) -> list[float] | None:
        """Return the detector box that overlaps ``box`` most; None if its IoU is below ``minimum``.

        Of equal ones the first, which is the detector's more confident.
        """
        from threedrs.scannet.boxes import box_iou_NM

        if scene in self.left_out:
            return None
        box_set = self._boxes(scene, "pred")
        if len(box_set.ids) == 0:
            return None
        iou_N = box_iou_NM(np.asarray([box], np.float32), box_set.boxes)[0]
        best = int(iou_N.argmax())
        return box_set.numbers(best) if iou_N[best] >= minimum else None

    def _boxes(self, scene: str, kind: str) -> "BoxSet":
        key = (scene, kind)
        if key not in self._cache:
            try:
                self._cache[key] = self._load(scene, kind)
            except RowError as error:
                # Kept as well, or each of a scene's rows would read the broken scan again.
                self._cache[key] = error
        found = self._cache[key]
        if isinstance(found, RowError):
            raise RowError(found.reason, found.detail)
        return found

    def _load(self, scene: str, kind: str) -> "BoxSet":
        if self._given is not None:
            if scene not in self._given:
                raise RowError(SCENE_MISSING, f"{scene} is not among the scenes with boxes")
            return self._given[scene][kind]
        if not self._scans.is_dir():
            raise DataError(
                f"{self._scans}: is not a folder; object boxes come from the scans, so the data "
                "root must hold them"
            )
        from threedrs.scannet.boxes import detector_boxes, ground_truth_boxes

        try:
            scan = self._layout.scan(scene)
            # One kind alone is read: proposals, which only Scan2Cap's questions ask for, may lack.
            boxes, _ = ground_truth_boxes(scan) if kind == "gt" else detector_boxes(scan)
            return boxes
        except ThreedrsError as error:
            raise RowError(SCENE_UNREADABLE, str(error)) from error


class NamesOnly(SceneBoxes):
    """Scenes of which only the names count: any will do, and every box is zeros.

    For what rows say of themselves, such as the true answers to a question.
    """

    def __init__(self) -> None:
        self.left_out = {}
        self._known = None

    def ground_truth(self, scene: str, object_ids: list[int]) -> list[list[float]]:
        """Return zeros."""
        return [[0.0] * 6 for _ in object_ids]

    def best_detector_box(self, scene: str, box: list[float], minimum: float) -> None:
        """Return None."""
