"""Published scores, for comparison (3DRS, arXiv 2506.01946, and the papers it cites).

The scores are the benchmarks' (`Task.published_scores`), in percent as the papers print
them, on ScanNet's validation scenes (SQA3D: test questions). Here are the methods, in the order of
the page, and of 3DRS's own rows the setting, by which a run finds the row that it repeats.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threedrs.tasks.base import Column
from threedrs.tasks.registry import find_task

SOURCE = "https://arxiv.org/abs/2506.01946"
SIZE = "7b"  # of every row that a run may be held beside, trained without LoRA
MAIN = "3DRS (LLaVA-Video)"  # whose details the benchmarks' files hold
# Backbone family, as in the configuration's ``model.name``, to the paper's name of it.
BACKBONES = {
    "llava-video": "LLaVA-Video",
    "llava-onevision": "LLaVA-OneVision",
    "qwen2-vl": "Qwen2-VL",
}


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One method, and of 3DRS and its baselines the setting in the configuration's words.

    ``layer`` is a description where the configuration knows no such layers.
    """

    method: str
    backbone: str | None = None
    teacher: str | None = None
    loss: str = "l2"
    layer: str = "last"

    def of(self, columns: Sequence[Column]) -> list[float | None]:
        """Return the method's values of the given headline columns, None where there is none."""
        return [self._value(column) for column in columns]

    def _value(self, column: Column) -> float | None:
        task = find_task(column.benchmark)
        values = task.published_scores.get(self.method)
        return None if values is None else values[task.columns.index(column)]

    def is_of(self, config: Mapping[str, Any]) -> bool:
        """Return whether a run repeats the row; ``config`` is the run resolved."""
        # How a checkpoint was trained that is evaluated as it is, is not known here.
        if "teacher" not in config or config["train"]["lora"]:
            return False
        model, supervision = config["model"], config["supervision"]
        setting = model["name"], model["size"], _teacher(config)
        return setting == (self.backbone, SIZE, self.teacher) and (
            self.teacher == "none"
            or (supervision["loss"], supervision["layer"]) == (self.loss, self.layer)
        )


# The published folders of features, and whose features they hold.
_IMPORTED = {
    "posed_images_3d_feature_vggt": "vggt",
    "posed_images_3d_feature": "flare",
    "posed_images_3d_feature_dinov2": "dinov2",
    "posed_images_3d_feature_siglip2": "siglip2",
}


def _teacher(config: Mapping[str, Any]) -> str:
    """Return a run's teacher; of imported features the one that made them, where they say it."""
    teacher = config["teacher"]
    if config["supervision"]["weight"] == 0:  # a loss that counts nothing teaches nothing
        return "none"
    if teacher["name"] != "import":
        return str(teacher["name"])
    return _IMPORTED.get(Path(teacher["weights"] or "").name, "import")


def setting_of(config: Mapping[str, Any]) -> str:
    """Return in words what a published row of a run would have to be of."""
    if "teacher" not in config:
        return "how its checkpoint was trained is not known here"
    teacher, supervision = _teacher(config), config["supervision"]
    words = [f"{config['model']['name']} of size {config['model']['size']}", f"teacher {teacher}"]
    if teacher != "none":
        words += [f"loss {supervision['loss']}", f"layer {supervision['layer']}"]
    return ", ".join([*words, *["LoRA"] * bool(config["train"]["lora"])])


def _variant(method: str, teacher: str = "vggt", **setting: str) -> PublishedRow:
    return PublishedRow(method=method, backbone="llava-video", teacher=teacher, **setting)


METHODS = (
    _variant(MAIN),
    _variant("its baseline (Video-3D LLM)", "none"),
    PublishedRow(method="LLaVA-OneVision + 3DRS", backbone="llava-onevision", teacher="vggt"),
    PublishedRow(method="LLaVA-OneVision", backbone="llava-onevision", teacher="none"),
    PublishedRow(method="Qwen2-VL + 3DRS", backbone="qwen2-vl", teacher="vggt"),
    PublishedRow(method="Qwen2-VL", backbone="qwen2-vl", teacher="none"),
    *(
        PublishedRow(method=method)
        for method in (
            *("LLaVA-3D", "ChatScene", "Inst3D-LLM", "PQ3D", "LEO", "Grounded 3D-LLM"),
            *("3D-VisTA", "M3DRef-CLIP", "3D-LLaVA", "Chat-3D v2"),
            "VG-LLM-4B (its README; no 3D input)",
        )
    ),
)
# Tables 4, 12 and 13 of the 3DRS paper.
VARIANTS = (
    _variant("3DRS with SigLIP 2", "siglip2"),
    _variant("3DRS with MAE", "mae"),
    _variant("3DRS with DINOv2", "dinov2"),
    _variant("3DRS with FLARE", "flare"),
    _variant("3DRS, last and third last layer", layer="last and third last"),
    _variant("3DRS, last, third and fifth last layer", layer="last, third and fifth last"),
    _variant("3DRS, cosine loss", loss="cosine"),
    _variant("3DRS, both losses", loss="both"),
)
# Taken from other people's notes, not read in the papers.
SECONDARY = tuple(
    PublishedRow(method=method)
    for method in (
        *("Ross3D", "GPT4Scene (Qwen2-VL)", "GPT4Scene (Qwen2.5-VL)", "3D-IDE"),
        *("Imagine3D-LLM", "VLM-3R"),
    )
)
GROUPS = {
    "Published, on ScanNet": METHODS,
    "3DRS with other teachers, layers and losses (its Tables 4, 12 and 13)": VARIANTS,
    "From secondary sources: not read in the papers": SECONDARY,
}
PUBLISHED = (*METHODS, *VARIANTS, *SECONDARY)
