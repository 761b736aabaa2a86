"""The demo data as 3DRS and Video-3D LLM publish theirs: exported frames, matrices, boxes, records.

Made from scans that `threedrs.demo.write` has written, so that both hold the same rooms. What the
published form loses of boxes is lost here too: vertices are float32, and there are no categories.
Some two seconds a room.
"""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.demo.write import (
    FRAMES,
    MARKER,
    check_folder,
    demo_files,
    demo_scenes,
    older_demo,
    write_demo,
    write_marker,
)
from threedrs.errors import DataError
from threedrs.instructions.convert import convert
from threedrs.instructions.llava_format import load_records, write_llava
from threedrs.io.files import atomic_folder, is_leftover, write_json
from threedrs.scannet.boxes import BoxSet, aligned_vertices, detector_boxes, ground_truth_boxes
from threedrs.scannet.geometry import axis_alignment
from threedrs.scannet.label_table import BENCHMARK_CLASSES, benchmark_class, read_label_table
from threedrs.scannet.layout import DataLayout, ScanFiles
from threedrs.scannet.mesh import read_instances
from threedrs.scannet.posed_images import export_posed_images
from threedrs.scannet.sens import SensReader
from threedrs.scenes.coverage import FEWEST, VOXEL, MeshVoxels, greedy_rows
from threedrs.tasks.registry import TASKS

STRIDE = 10
SELECTED = 32  # frames of a scene in scannet_select_frames.json
FEATURE_FRAMES = 8  # of a scene's feature file, as many as the demo's configuration asks for
SPECIAL_TOKENS = 5  # of a frame in it, before the patches
NAMES = {"scanrefer": "scanrefer_vg"}  # of processed files, where they differ from the benchmark's

Say = Callable[[str], None]  # is told what is done


def write_published_demo(out: Path, scenes: int, seed: int, *, say: Say) -> None:
    """Write generated rooms as a published folder, whole or not at all.

    Of an older demo in ``out`` the files are replaced that it wrote; others beside them stay.

    Raises:
        ConfigError: too few or too many scenes, or a negative seed.
        DataError: ``out`` holds files that are not such a folder, or one that would be replaced, or
            is the working folder.
    """
    if Path.cwd().is_relative_to(out.resolve()):
        # It is replaced as a whole, and who is in it would be in a folder that is gone.
        raise DataError(f"{out}: is or holds the working folder; run this from outside of it")
    _files_to_keep(out, scenes)
    with atomic_folder(out) as folder:
        write_demo(folder / "scans", scenes, seed, say=say)
        publish(folder / "scans", folder, say=say)
        trained = DataLayout(root=folder / "scans").scenes("train")
        _write_features(trained, folder / "scannet", say=say)
        shutil.rmtree(folder / "scans")
        write_marker(folder, "published", scenes, seed)
        # Asked again, as some may have come in these minutes.
        for file in _files_to_keep(out, scenes):
            # Not moved: nothing is lost where this is stopped before the folder is in place.
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(out / file, folder / file)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)  # takes no time, however large it is
    except OSError:  # the file system has no links
        shutil.copy2(source, target, follow_symlinks=False)


def published_files(scenes: int) -> list[str]:
    """Return the paths, relative to the folder, of the files of a demo beside its marker."""
    paths = [file for file in demo_files(scenes) if file.startswith("benchmark/")]
    for name, task in TASKS.items():
        paths += [f"processed/{_processed_name(name, split)}" for split in task.splits]
    paths += [f"metadata/scannet_{name}_box.json" for name in ("train_gt", "val_pred")]
    paths += ["metadata/pcd_discrete_0.1.pkl", "metadata/scannet_select_frames.json"]
    frames = [f"{frame:05d}" for frame in range(0, FRAMES, STRIDE)]
    images = [f"{frame}.{suffix}" for frame in frames for suffix in ("jpg", "png", "txt")]
    images += ["intrinsic.txt", "depth_intrinsic.txt"]
    for split, names in demo_scenes(scenes).items():
        if names:
            paths.append(f"embodiedscan/embodiedscan_infos_{split}.pkl")
        for scene in names:
            paths += [f"scannet/posed_images/{scene}/{image}" for image in images]
            paths.append(f"scannet/mask/{scene}.mask.npz")
            paths.append(f"scannet/pcd_with_object_aabbs/{split}/{scene}.pth")
            if split == "train":
                paths.append(f"scannet/posed_images_3d_feature_vggt/{scene}/vggt.npz")
    return paths


def _files_to_keep(out: Path, scenes: int) -> list[Path]:
    """Return the files in ``out``, relative to it, that no demo wrote.

    Raises:
        DataError: ``out`` holds no demo but other files, or a demo of so many scenes would write
            over one.
    """
    check_folder(out, "published")
    older = older_demo(out, "published")
    made = {Path(name) for name in (MARKER, *published_files(older))} if older else set()
    kept = [
        file
        for path in sorted(out.rglob("*"))
        # A link to a folder is the user's, as what it leads to is.
        if (path.is_symlink() or not path.is_dir()) and not is_leftover(path)
        if (file := path.relative_to(out)) not in made
    ]
    written = {
        path for file in map(Path, published_files(scenes)) for path in (file, *file.parents)
    }
    lost = next((path for path in kept if path in written), None)
    if lost is not None:
        raise DataError(
            f"{out} holds {lost}, which demo data would replace; move it away, or name another "
            "folder"
        )
    return kept


def publish(scans: Path, out: Path, *, say: Say = lambda line: None) -> None:
    """Write the scans and annotations below ``scans`` as the published folder ``out``.

    Raises:
        DataError: a file of the scans is missing or malformed.
    """
    layout, scannet = DataLayout(root=scans), out / "scannet"
    for folder in ("mask", "posed_images", "pcd_with_object_aabbs"):
        (scannet / folder).mkdir(parents=True)
    shutil.copytree(layout.benchmark_folder, out / "benchmark")
    classes = read_label_table(layout.labels_file)
    boxes: dict[str, dict[str, BoxSet]] = {}
    voxels: dict[str, list[tuple[int, ...]]] = {}
    selected: list[dict[str, Any]] = []
    scenes = {split: layout.scenes(split) for split in ("train", "val")}
    for split, names in scenes.items():
        infos = []
        for scene in names:
            say(f"demo: {len(boxes)} of {sum(map(len, scenes.values()))} rooms exported")
            scan = layout.scan(scene)
            gt, pred = ground_truth_boxes(scan)[0], detector_boxes(scan)[0]
            boxes[scene] = {"gt": gt, "pred": pred}
            shutil.copy2(scan.proposals, scannet / "mask")
            _write_cloud(scan, gt, classes, scannet / f"pcd_with_object_aabbs/{split}/{scene}.pth")
            vertices_P3 = aligned_vertices(scan).astype(np.float32).astype(np.float64)
            triples_M3 = np.unique(np.rint(vertices_P3 / VOXEL).astype(int), axis=0)
            voxels[scene] = [tuple(triple) for triple in triples_M3.tolist()]
            export_posed_images(scan.sens, scannet / "posed_images" / scene, stride=STRIDE)
            with SensReader(scan.sens) as reader:
                infos.append(_infos(scan, reader, gt))
                selected.append(_selected_frames(scan, reader, vertices_P3))
        path = out / f"embodiedscan/embodiedscan_infos_{split}.pkl"
        path.parent.mkdir(exist_ok=True)
        content = {"metainfo": {"DATASET": "EmbodiedScan", "categories": {}}, "data_list": infos}
        path.write_bytes(pickle.dumps(content))
    _write_metadata(layout, boxes, out / "metadata")
    (out / "metadata/pcd_discrete_0.1.pkl").write_bytes(pickle.dumps(voxels))
    # json.dumps, as the published file holds one line.
    (out / "metadata/scannet_select_frames.json").write_text(json.dumps(selected))
    _write_records(layout, boxes, out / "processed", say)


def _write_features(scenes: Sequence[str], scannet: Path, *, say: Say) -> None:
    """Write the small teacher's features as the published script does, of frames by the folder."""
    import torch

    from threedrs.teachers.image_decoding import preprocess_image
    from threedrs.teachers.image_extractor import patch_features
    from threedrs.teachers.teacher_frames import evenly_spaced, folder_frames
    from threedrs.teachers.vggt.extractor import TINY_IMAGES, tiny_model

    model = tiny_model(seed=0).eval()
    for number, scene in enumerate(scenes):
        say(f"demo: {number} of {len(scenes)} rooms have the teacher's features")
        folder = scannet / "posed_images" / scene
        frames = evenly_spaced(folder_frames(folder), FEATURE_FRAMES) or ()
        files = [folder / f"{frame:05d}.jpg" for frame in frames]
        images = np.stack([preprocess_image(file.read_bytes(), TINY_IMAGES) for file in files])
        patches_VPC = patch_features(model, torch.from_numpy(images)).numpy()
        # Camera and register tokens stand first; nothing reads them.
        tokens_VTC = np.pad(patches_VPC, ((0, 0), (SPECIAL_TOKENS, 0), (0, 0)))
        file = scannet / "posed_images_3d_feature_vggt" / scene / "vggt.npz"
        file.parent.mkdir(parents=True)
        np.savez_compressed(file, feature=tokens_VTC[None], ps_idx=np.array(SPECIAL_TOKENS))


def _write_cloud(scan: ScanFiles, boxes: BoxSet, classes: dict[str, int], path: Path) -> None:
    import open3d
    import torch

    vertices_P3 = aligned_vertices(scan)
    objects = read_instances(scan.segments, scan.aggregation, len(vertices_P3))
    names = sorted(BENCHMARK_CLASSES)
    class_of = {
        object_id: names.index(benchmark_class(classes, label))
        for object_id, label in zip(objects.ids, objects.labels, strict=True)
    }
    mesh = open3d.io.read_triangle_mesh(scan.mesh)
    mesh.compute_vertex_normals()
    corners_823 = np.array(list(np.ndindex(2, 2, 2)), np.float32) - np.float32(0.5)
    centres_K13, sizes_K13 = boxes.boxes[:, None, :3], boxes.boxes[:, None, 3:]
    path.parent.mkdir(exist_ok=True)
    content = {
        "xyz": vertices_P3.astype(np.float32),
        "rgb": (np.asarray(mesh.vertex_colors) * 255).round().astype(np.uint8),
        "normal": np.asarray(mesh.vertex_normals, dtype=np.float32),
        "sem_labels": np.array(
            [class_of.get(number, -1) for number in objects.vertex_object.tolist()], np.int8
        ),
        "instance_ids": objects.vertex_object.astype(np.int16),
        "aabb_obj_ids": boxes.ids.astype(np.int16),
        "aabb_corner_xyz": centres_K13 + sizes_K13 * corners_823,
    }
    torch.save(content, path)


def _infos(scan: ScanFiles, reader: SensReader, boxes: BoxSet) -> dict[str, Any]:
    folder = f"scannet/posed_images/{scan.scene}"
    return {
        "sample_idx": f"scannet/{scan.scene}",
        "axis_align_matrix": axis_alignment(scan),
        "cam2img": reader.header.intrinsic_color,
        "depth_cam2img": reader.header.intrinsic_depth,
        "images": [
            {
                "img_path": f"{folder}/{frame:05d}.jpg",
                "depth_path": f"{folder}/{frame:05d}.png",
                "cam2global": reader.poses[frame],
                "visible_instance_ids": [],
            }
            for frame in range(0, len(reader), STRIDE)
            if reader.valid[frame]
        ],
        "instances": [
            {"bbox_3d": [*box, 0.0, 0.0, 0.0], "bbox_label_3d": 0, "bbox_id": object_id}
            for box, object_id in zip(boxes.boxes.tolist(), boxes.ids.tolist(), strict=True)
        ],
    }


def _selected_frames(
    scan: ScanFiles, reader: SensReader, vertices_P3: np.ndarray
) -> dict[str, Any]:
    """Return the scene's entry of ``scannet_select_frames.json``, frames in the order of choice."""
    candidates = [frame for frame in range(0, len(reader), STRIDE) if reader.valid[frame]]
    candidates = candidates[:: 2 if len(candidates) >= 2 * FEWEST - 1 else 1]
    voxels, alignment = MeshVoxels(vertices_P3, str(scan.mesh)), axis_alignment(scan)
    seen_FM = np.zeros((len(candidates), len(voxels)), dtype=bool)
    for row, frame in enumerate(candidates):
        depth_HW, pose = reader.depth_millimetres(frame), alignment @ reader.poses[frame]
        seen_FM[row, voxels.seen(depth_HW, reader.header.intrinsic_depth, pose)] = True
    chosen, covered = greedy_rows(seen_FM, SELECTED, None)
    # What each frame adds to those chosen before it.
    counts = np.logical_or.accumulate(seen_FM[chosen]).sum(axis=1)
    return {
        "video_id": f"scannet/{scan.scene}",
        "frame_files": [
            f"data/scannet/posed_images/{scan.scene}/{candidates[index]:05d}.jpg"
            for index in chosen
        ],
        "voxel_nums": np.diff(counts, prepend=0).tolist(),
        "num_all_voxels": int(seen_FM.any(axis=0).sum()),
        "num_select_voxels": covered,
    }


def _write_metadata(layout: DataLayout, boxes: dict[str, dict[str, BoxSet]], folder: Path) -> None:
    """Write the two box files; a scene with gaps in its object ids has no ground truth there."""
    folder.mkdir()
    for split, name in (("train", "gt"), ("val", "pred")):
        sets = {scene: boxes[scene][name] for scene in layout.scenes(split)}
        content = {
            f"scannet/{scene}": [*map(found.numbers, range(len(found)))]
            for scene, found in sets.items()
            if name == "pred" or found.ids.tolist() == list(range(len(found)))
        }
        write_json(folder / f"scannet_{split}_{name}_box.json", content)


def _write_records(
    layout: DataLayout, boxes: dict[str, dict[str, BoxSet]], folder: Path, say: Say
) -> None:
    folder.mkdir()
    for name, task in TASKS.items():
        for split in task.splits:
            say(f"demo: writing the records {name} {split}")
            records = folder / f"{name}_{split}.jsonl"
            convert(name, split, layout, boxes, records)
            write_llava(folder / _processed_name(name, split), load_records(records))
    for path in folder.iterdir():
        if not path.name.endswith("_llava_style.json"):
            path.unlink()


def _processed_name(benchmark: str, split: str) -> str:
    return f"{NAMES.get(benchmark, benchmark)}_{split}_llava_style.json"
