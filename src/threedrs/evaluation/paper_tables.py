"""The summary's headline metrics as tables that paste into a paper: LaTeX (booktabs), Markdown.

One row a run, or a group of runs that differ in the seed (mean and standard deviation). A star
marks a significant difference to the baseline (paired bootstrap, p < 0.05), two stars one that
stays so after Holm's correction for the number of headline metrics.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from threedrs.evaluation.headline import COLUMNS, Column

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def stars(compared: Mapping[str, Any] | None, level: float) -> str:
    """Return the mark of a comparison: "", "*" or "**"."""
    if not compared or compared.get("p") is None or compared["p"] >= level:
        return ""
    corrected = compared.get("p_holm")
    return "**" if corrected is not None and corrected < level else "*"


def shown_columns(summary: Mapping[str, Any]) -> list[Column]:
    """Return the headline columns of the summary's benchmarks."""
    return [column for column in COLUMNS if column.benchmark in summary["benchmarks"]]


def markdown_table(summary: Mapping[str, Any]) -> str:
    """Return the table in Markdown, with a line that explains its marks."""
    columns = shown_columns(summary)
    rows = [["run", *(f"{column.group} {column.title}" for column in columns)]]
    rows.append(["---", *("---:" for _ in columns)])
    for group in summary["groups"]:
        cells = [_cell(summary, group, column) for column in columns]
        name = group["name"].replace("\\", "\\\\").replace("|", "\\|")
        rows.append([name, *(_markdown_cell(*cell) for cell in cells)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\n{_explanation(summary)}\n"


def latex_table(summary: Mapping[str, Any]) -> str:
    r"""Return the table in LaTeX; needs ``\usepackage{booktabs}``. The best value is bold."""
    columns = shown_columns(summary)
    heads, rules, start = [], [], 2
    for name, members in groupby(columns, key=lambda column: column.group):
        width = len(list(members))
        heads.append(f"\\multicolumn{{{width}}}{{c}}{{{name}}}")
        rules.append(f"\\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    best = {
        column: max(
            (
                mean
                for group in summary["groups"]
                if (mean := _cell(summary, group, column)[0]) is not None
            ),
            default=None,
        )
        for column in columns
    }
    lines = [
        f"% {_explanation(summary)}",
        r"% needs \usepackage{booktabs}",
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        f" & {' & '.join(heads)} \\\\",
        " ".join(rules),
        f"Run & {' & '.join(column.title for column in columns)} \\\\",
        r"\midrule",
    ]
    for group in summary["groups"]:
        cells = [_cell(summary, group, column) for column in columns]
        texts = [
            _latex_cell(*cell, best=cell[0] is not None and cell[0] == best[column])
            for cell, column in zip(cells, columns, strict=True)
        ]
        name = "".join(_LATEX.get(character, character) for character in group["name"])
        lines.append(f"{name} & {' & '.join(texts)} \\\\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


_Cell = tuple[float | None, float | None, str]


def _cell(summary: Mapping[str, Any], group: Mapping[str, Any], column: Column) -> _Cell:
    """Return mean, standard deviation (None for one run) and mark."""
    found = group["metrics"].get(column.benchmark, {}).get(column.metric)
    if found is None:
        return None, None, ""
    compared = group["comparison"].get(column.benchmark, {}).get(column.metric)
    return found["mean"], found["std"], stars(compared, summary["comparison"]["level"])


def _markdown_cell(mean: float | None, deviation: float | None, mark: str) -> str:
    if mean is None:
        return "–"
    spread = "" if deviation is None else f" ± {deviation:.1f}"
    return f"{mean:.1f}{spread}{mark.replace('*', chr(92) + '*')}"


def _latex_cell(mean: float | None, deviation: float | None, mark: str, *, best: bool) -> str:
    if mean is None:
        return "--"
    text = f"\\textbf{{{mean:.1f}}}" if best else f"{mean:.1f}"
    spread = "" if deviation is None else f" {{\\scriptsize $\\pm${deviation:.1f}}}"
    return f"{text}{spread}{f'$^{{{mark}}}$' if mark else ''}"


def _explanation(summary: Mapping[str, Any]) -> str:
    settings = summary["comparison"]
    sizes = _question_counts(summary)
    return (
        f"Percent. Stars: significant difference to {summary['baseline']} (paired bootstrap over "
        f"scenes, {settings['resamples']} resamples, p < {settings['level']}); two stars: also "
        f"after Holm's correction. Questions: {sizes}."
    )


def questions_left_out(result: Mapping[str, Any]) -> int:
    """Return how many questions of a benchmark's result were not asked, their scans unusable."""
    return (result.get("left_out") or {"questions": 0})["questions"]


def _question_counts(summary: Mapping[str, Any]) -> str:
    baseline: Mapping[str, Any] = summary["runs"][summary["baseline"]]["benchmarks"]
    names: Sequence[str] = [name for name in summary["benchmarks"] if name in baseline]
    return ", ".join(f"{name} {baseline[name]['n']}{_left_out(baseline[name])}" for name in names)


def _left_out(result: Mapping[str, Any]) -> str:
    questions = questions_left_out(result)
    return f" ({questions} more left out: scans that cannot be used)" if questions else ""
