"""Published scores, for comparison (3DRS, arXiv 2506.01946, and the papers it cites).

The scores stand in the benchmarks' files (`Task.published_scores`), in percent as the papers print
them, on ScanNet's validation scenes (SQA3D: test questions). Here are the methods, in the order of
the page.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from threedrs.tasks.base import Column
from threedrs.tasks.registry import find_task

SOURCE = "https://arxiv.org/abs/2506.01946"
# Backbone family, as in the configuration's ``model.name``, to the paper's name of it.
BACKBONES = {
    "llava-video": "LLaVA-Video",
    "llava-onevision": "LLaVA-OneVision",
    "qwen2-vl": "Qwen2-VL",
}


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One method; ``backbone`` is set for those that compare 3DRS with its baseline on one."""

    method: str
    backbone: str | None = None

    def of(self, columns: Sequence[Column]) -> list[float | None]:
        """Return the method's values of the given headline columns, None where there is none."""
        return [self._value(column) for column in columns]

    def _value(self, column: Column) -> float | None:
        task = find_task(column.benchmark)
        values = task.published_scores.get(self.method)
        return None if values is None else values[task.columns.index(column)]


PUBLISHED = (
    PublishedRow(method="3DRS (LLaVA-Video)", backbone="llava-video"),
    PublishedRow(method="its baseline (Video-3D LLM)", backbone="llava-video"),
    PublishedRow(method="LLaVA-OneVision + 3DRS", backbone="llava-onevision"),
    PublishedRow(method="LLaVA-OneVision", backbone="llava-onevision"),
    PublishedRow(method="Qwen2-VL + 3DRS", backbone="qwen2-vl"),
    PublishedRow(method="Qwen2-VL", backbone="qwen2-vl"),
    PublishedRow(method="LLaVA-3D"),
    PublishedRow(method="ChatScene"),
    PublishedRow(method="Inst3D-LLM"),
    PublishedRow(method="PQ3D"),
    PublishedRow(method="LEO"),
    PublishedRow(method="Grounded 3D-LLM"),
    PublishedRow(method="3D-VisTA"),
    PublishedRow(method="M3DRef-CLIP"),
)
