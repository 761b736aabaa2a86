"""Published scores, for comparison (3DRS, arXiv 2506.01946, and the papers it cites).

Values in percent as the papers print them, on ScanNet's validation scenes (SQA3D: test questions);
``None`` where a paper gives no number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from threedrs.evaluation.headline import COLUMNS, Column

SOURCE = "https://arxiv.org/abs/2506.01946"
# Backbone family, as in the configuration's ``model.name``, to the paper's name of it.
BACKBONES = {
    "llava-video": "LLaVA-Video",
    "llava-onevision": "LLaVA-OneVision",
    "qwen2-vl": "Qwen2-VL",
}


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One method's published scores, in the order of ``COLUMNS``.

    ``backbone`` is set for the rows that compare 3DRS with its baseline on one backbone.
    """

    method: str
    values: tuple[float | None, ...]
    backbone: str | None

    def of(self, columns: Sequence[Column]) -> list[float | None]:
        """Return the values of the given headline columns."""
        return [self.values[COLUMNS.index(column)] for column in columns]


def _row(method: str, *values: float | None, backbone: str | None = None) -> PublishedRow:
    assert len(values) == len(COLUMNS)
    return PublishedRow(method=method, values=values, backbone=backbone)


_LLAVA_VIDEO, _ONE_VISION, _QWEN = BACKBONES


PUBLISHED = (
    _row(
        "3DRS (LLaVA-Video)",
        62.9,
        56.1,
        60.4,
        54.9,
        86.1,
        41.6,
        104.8,
        30.3,
        60.6,
        backbone=_LLAVA_VIDEO,
    ),
    _row(
        "its baseline (Video-3D LLM)",
        58.1,
        51.7,
        58.0,
        52.7,
        83.8,
        41.3,
        102.1,
        30.1,
        58.6,
        backbone=_LLAVA_VIDEO,
    ),
    _row(
        "LLaVA-OneVision + 3DRS",
        61.8,
        55.0,
        60.5,
        55.0,
        83.1,
        41.2,
        104.0,
        29.5,
        59.4,
        backbone=_ONE_VISION,
    ),
    _row(
        "LLaVA-OneVision",
        57.3,
        51.0,
        57.1,
        51.9,
        81.7,
        40.4,
        101.7,
        29.0,
        57.4,
        backbone=_ONE_VISION,
    ),
    _row("Qwen2-VL + 3DRS", 60.1, 53.5, 58.5, 54.5, 81.6, 40.9, 99.2, 28.9, 60.0, backbone=_QWEN),
    _row("Qwen2-VL", 57.0, 50.8, 56.2, 51.4, 79.4, 39.5, 97.5, 28.7, 58.6, backbone=_QWEN),
    _row("LLaVA-3D", 54.1, 42.4, None, None, 79.2, 41.1, 91.7, 27.0, 55.6),
    _row("ChatScene", 55.5, 50.2, 57.1, 52.4, 77.1, 36.3, 87.7, 21.6, 54.6),
    _row("Inst3D-LLM", 57.8, 51.6, 58.3, 53.5, 79.7, 38.3, 88.6, 24.6, None),
    _row("PQ3D", 57.0, 51.2, None, 50.1, 80.3, 36.0, None, None, 47.1),
    _row("LEO", None, None, None, None, 72.4, 38.2, 101.4, 21.5, 50.0),
    _row("Grounded 3D-LLM", 47.9, 44.1, 45.2, 40.6, 70.6, 35.5, 72.7, None, None),
    _row("3D-VisTA", 50.6, 45.8, None, None, 66.9, 34.0, 69.6, 22.4, 48.5),
    _row("M3DRef-CLIP", 51.9, 44.7, 42.8, None, 38.4, None, None, None, None),
)
