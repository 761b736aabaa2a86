"""The headline metrics: what papers of this field print, in their order."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Column:
    """A headline metric.

    Attributes:
        benchmark: the benchmark's name.
        metric: the metric's name in ``metrics.json``.
        group: the benchmark's name as papers print it.
        title: the metric's name as papers print it.
        meaning: what it measures, in plain words.
    """

    benchmark: str
    metric: str
    group: str
    title: str
    meaning: str


def _column(benchmark: str, metric: str, group: str, title: str, meaning: str) -> Column:
    return Column(benchmark=benchmark, metric=metric, group=group, title=title, meaning=meaning)


_FIND = "find the one described object: share of questions whose box overlaps the true box by"
_FIND_ALL = "find all described objects, or none: F1 of the boxes that overlap a true one by"
_CAPTION = "describe an object: closeness to people's descriptions,"

COLUMNS = (
    _column("scanrefer", "acc@0.25", "ScanRefer", "Acc@0.25", f"{_FIND} 25 % or more"),
    _column("scanrefer", "acc@0.5", "ScanRefer", "Acc@0.5", f"{_FIND} half or more"),
    _column("multi3drefer", "f1@0.25", "Multi3DRefer", "F1@0.25", f"{_FIND_ALL} 25 % or more"),
    _column("multi3drefer", "f1@0.5", "Multi3DRefer", "F1@0.5", f"{_FIND_ALL} half or more"),
    _column("scan2cap", "cider", "Scan2Cap", "C@0.5", f"{_CAPTION} rare words counting more"),
    _column("scan2cap", "bleu4", "Scan2Cap", "B-4@0.5", f"{_CAPTION} runs of four words"),
    _column("scanqa", "cider", "ScanQA", "C", "answer a question: closeness to people's answers"),
    _column(
        "scanqa", "em", "ScanQA", "EM", "answer a question: share of answers a person gave verbatim"
    ),
    _column(
        "sqa3d",
        "em",
        "SQA3D",
        "EM",
        "answer from where one stands: share of right answers",
    ),
)
