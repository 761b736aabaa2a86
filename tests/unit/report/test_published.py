"""Which published row a run is held beside, and what is said where there is none."""

from typing import Any

import pytest

from threedrs.report.published import PUBLISHED, SECONDARY, setting_of


def config(teacher: str, backbone: str = "llava-video", **more: Any) -> dict[str, Any]:
    supervision = {"weight": 1.0, "loss": "l2", "layer": "last", **more.pop("supervision", {})}
    return {
        "model": {"name": backbone, "size": more.pop("size", "7b")},
        "teacher": {"name": teacher, "weights": more.pop("weights", None)},
        "supervision": supervision,
        "train": {"lora": more.pop("lora", None)},
    }


@pytest.mark.parametrize(
    ("run", "method"),
    [
        (config("vggt"), "3DRS (LLaVA-Video)"),
        (config("none", supervision={"weight": 0.0}), "its baseline (Video-3D LLM)"),
        # A loss that counts nothing has no teacher.
        (config("vggt", supervision={"weight": 0.0}), "its baseline (Video-3D LLM)"),
        (config("vggt", "qwen2-vl"), "Qwen2-VL + 3DRS"),
        (config("dinov2"), "3DRS with DINOv2"),
        (config("vggt", supervision={"loss": "cosine"}), "3DRS, cosine loss"),
        (config("import", weights="a/posed_images_3d_feature_vggt"), "3DRS (LLaVA-Video)"),
        (config("import", weights="a/posed_images_3d_feature"), "3DRS with FLARE"),
    ],
)
def test_a_run_is_held_beside_the_row_of_its_setting(run: dict[str, Any], method: str) -> None:
    assert [row.method for row in PUBLISHED if row.is_of(run)] == [method]


@pytest.mark.parametrize(
    ("run", "setting"),
    [
        (config("pointmap"), "llava-video of size 7b, teacher pointmap, loss l2, layer last"),
        (config("dinov2", "qwen2-vl"), "qwen2-vl of size 7b, teacher dinov2"),
        (config("vggt", supervision={"layer": 3}), "layer 3"),
        (config("import", weights="my/features"), "teacher import"),
        (config("vggt", size="tiny"), "llava-video of size tiny"),
        (config("none", lora={"rank": 8}), "llava-video of size 7b, teacher none, LoRA"),
        ({"model": {"name": "llava-video"}, "checkpoint": "x"}, "how its checkpoint was trained"),
    ],
)
def test_a_run_of_another_setting_is_named_with_it(run: dict[str, Any], setting: str) -> None:
    assert setting in setting_of(run)
    assert not any(row.is_of(run) for row in PUBLISHED)


def test_secondary_rows_stand_by_themselves() -> None:
    assert {row.method for row in SECONDARY} >= {"Ross3D", "3D-IDE", "VLM-3R"}
    assert all(row.teacher is None for row in SECONDARY)
