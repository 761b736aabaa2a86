"""Scores as tables: of a summary in Markdown and LaTeX, and of one metrics file for the terminal.

The table of a summary shows its headline metrics, one row a run, or a group of runs that differ in
the seed (mean and standard deviation). A star marks a difference to the baseline that
seeds and rooms do not explain (p < 0.05 after Holm's correction for all that was tested); without
three seeds on both sides there is none.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from threedrs.errors import counted
from threedrs.evaluation.alike_answers import alike_answers, alike_sentences
from threedrs.evaluation.controls import sentences_of_looking
from threedrs.evaluation.trivial_answers import mean_of, sentences_below
from threedrs.tasks.base import Column
from threedrs.tasks.registry import find_task, headline_columns

OTHER_FRAMES = "†"  # stands at runs that features of other frames supervised, as published
# A bare star would begin italics that end at the next one.
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\|*"})
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    # After the end of a row, a bare bracket would begin the height of the gap below it.
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "[": "{[}"}
    | {OTHER_FRAMES: r"\textdagger{}", "*": "$^{*}$", "±": r"$\pm$", "–": "--"}
)


def is_shown(compared: Mapping[str, Any], level: float) -> bool:
    """Return whether a difference is more than the luck of seeds and rooms."""
    corrected = compared.get("p_holm")
    return corrected is not None and corrected < level


def supervision_notes(entry: Mapping[str, Any]) -> list[str]:
    """Return what a run's summary says of features of other frames; see `FrameCounts.notes`."""
    frames = (entry["train"] or {}).get("teacher_frames") or {}
    return list(frames.get("notes", []))


def run_notes(entry: Mapping[str, Any]) -> list[str]:
    """Return what a reader of a run's numbers must know, from its part of a summary."""
    lines = supervision_notes(entry)
    for name, result in entry["benchmarks"].items():
        if result.get("limit"):
            asked = result["limit"]["questions"]
            lines.append(f"{name}: the first {counted(asked, 'question')} only, not a score")
        if result.get("unanswered"):
            lines.append(f"{name} is not answered: {result['unanswered']}")
    alike = alike_answers(entry).items()
    return lines + [f"{find_task(name).title}: {one.said} {one.counted}" for name, one in alike]


def frames_mark(summary: Mapping[str, Any], runs: Sequence[str]) -> str:
    """Return the mark of runs one of which was supervised by features of other frames, or ""."""
    trained = [summary["runs"][run]["train"] or {} for run in runs]
    counts = [train.get("teacher_frames") or {} for train in trained]
    marked = any(c.get("rule") == "as_published" and c["other_frames"] for c in counts)
    return OTHER_FRAMES if marked else ""


def markdown_table(summary: Mapping[str, Any]) -> str:
    """Return the table in Markdown, with what explains its marks and its last rows."""
    columns = headline_columns(summary["benchmarks"])
    settings, trivial, [notes] = _parts(summary, columns, _MARKDOWN)
    rows = [["run", *(column.full_title for column in columns)], ["---", *["---:"] * len(columns)]]
    rows += [*settings, *([f"*{name}*", *cells] for name, *cells in trivial)]
    return "\n\n".join(["\n".join(f"| {' | '.join(row)} |" for row in rows), *notes]) + "\n"


def latex_table(summary: Mapping[str, Any]) -> str:
    """Return the same in LaTeX with booktabs. The best value of a column is bold."""
    columns = headline_columns(summary["benchmarks"])
    settings, trivial, [notes] = _parts(summary, columns, _LATEX)
    for at, value in enumerate(best_values(summary, columns).values(), start=1):
        for row in settings if value is not None else []:
            if row[at].startswith(best := f"{value:.1f}"):
                row[at] = rf"\textbf{{{best}}}{row[at].removeprefix(best)}"
    heads, rules, start = [""], [], 2
    for (_, group), count in Counter((c.benchmark, c.group) for c in columns).items():
        heads.append(rf"\multicolumn{{{count}}}{{c}}{{{group.translate(_LATEX)}}}")
        rules.append(rf"\cmidrule(lr){{{start}-{start + count - 1}}}")
        start += count
    titles = ["Run", *(column.title.translate(_LATEX) for column in columns)]
    italic = [[rf"\textit{{{name}}}", *cells] for name, *cells in trivial]
    above, below, *body = (rf"{' & '.join(r)} \\" for r in [heads, titles, *settings, *italic])
    if trivial:
        body.insert(len(settings), r"\midrule")
    begin = [r"% needs \usepackage{booktabs}", rf"\begin{{tabular}}{{l{'r' * len(columns)}}}"]
    lines = [*begin, r"\toprule", above, " ".join(rules), below, r"\midrule", *body]
    lines += [r"\bottomrule", r"\end{tabular}", r"\par{\footnotesize", "\n\n".join(notes), r"\par}"]
    return "\n".join(lines) + "\n"


def _parts(
    summary: Mapping[str, Any], columns: Sequence[Column], escapes: Mapping[int, str]
) -> Iterator[list[list[str]]]:
    """Yield the rows of settings, those without looking, and a list of what stands below them."""
    settings, trivial, notes = [], [], [_explanation(summary)]
    for group in summary["groups"]:
        cells = [_cell_text(*setting_cell(summary, group, column)) for column in columns]
        settings.append([group["name"] + frames_mark(summary, group["runs"]), *cells])
    if summary["trivial"]:
        notes.append("Rows in italics score without a look at the room.")
    for row in summary["trivial"]:
        cells = [_cell_text(mean_of(row, c.benchmark, c.metric)) for c in columns]
        trivial.append([row["name"], *cells])
        notes.append(f"{row['name']}: {row['how']}")
    notes += [*sentences_below(summary, columns), *sentences_of_looking(summary, columns)]
    for rows in (settings, trivial, [notes]):
        yield [[text.translate(escapes) for text in row] for row in rows]


def best_values(
    summary: Mapping[str, Any], columns: Sequence[Column]
) -> dict[Column, float | None]:
    """Return the highest mean of each column as tables print it, to one decimal.

    None where no difference to the baseline is shown, as a seed may have made the order there.
    """
    best: dict[Column, float | None] = {}
    for column in columns:
        cells = [setting_cell(summary, group, column) for group in summary["groups"]]
        shown = any(mark for _, _, mark in cells)
        means = [mean for mean, _, _ in cells if mean is not None]
        best[column] = round(max(means), 1) if shown else None
    return best


def setting_cell(
    summary: Mapping[str, Any], group: Mapping[str, Any], column: Column
) -> tuple[float | None, float | None, str]:
    """Return mean, standard deviation (None for one run) and mark."""
    found = group["metrics"].get(column.benchmark, {}).get(column.metric)
    if found is None:
        return None, None, ""
    compared = group["comparison"].get(column.benchmark, {}).get(column.metric, {})
    mark = "*" if is_shown(compared, summary["comparison"]["level"]) else ""
    return found["mean"], found["std"], mark


def _cell_text(mean: float | None, deviation: float | None = None, mark: str = "") -> str:
    if mean is None:
        return "–"
    spread = "" if deviation is None else f" ± {deviation:.1f}"
    return f"{mean:.1f}{spread}{mark}"


def _explanation(summary: Mapping[str, Any]) -> str:
    """Return in one paragraph what the numbers are, what was asked and what the marks mean."""
    settings = summary["comparison"]
    sentences = ["Percent."]
    if settings["tests"]:
        sentences.append(
            f"A star marks a difference to {summary['baseline']} that the luck of seeds and rooms "
            f"does not explain (p < {settings['level']} after Holm's correction for "
            f"{settings['tests']} tests; fewer than {settings['fewest_seeds']} seeds of a setting "
            "are not tested)."
        )
    sentences.append(f"Questions: {_question_counts(summary)}.")
    sentences += [
        f"{run} does not answer {name}: {result['unanswered']}."
        for run, entry in summary["runs"].items()
        for name, result in entry["benchmarks"].items()
        if result.get("unanswered")
    ]
    marked = [run for run in summary["runs"] if frames_mark(summary, [run])]
    sentences += [OTHER_FRAMES] if marked else []
    sentences += [" ".join([f"{run}:", *supervision_notes(summary["runs"][run])]) for run in marked]
    return " ".join([*sentences, *alike_sentences(summary)])


def questions_left_out(result: Mapping[str, Any]) -> int:
    """Return how many questions were not asked because their scans cannot be used."""
    return (result.get("left_out") or {"questions": 0})["questions"]


def _question_counts(summary: Mapping[str, Any]) -> str:
    """Return how many questions of each benchmark were asked, and why some were not."""
    counts = []
    for name in summary["benchmarks"]:
        runs = [entry["benchmarks"] for entry in summary["runs"].values()]
        found = max((run[name] for run in runs if name in run), key=lambda result: result["n"])
        reasons = []
        if found.get("limit"):
            reasons.append(f"the first of {found['limit']['of']}: not a score of the benchmark")
        if missing := questions_left_out(found):
            reasons.append(f"{missing} more left out: scans that cannot be used")
        counts.append(f"{name} {found['n']}" + (f" ({'; '.join(reasons)})" if reasons else ""))
    return ", ".join(counts)


def metrics_table(result: Mapping[str, Any]) -> Table:
    """Return the table of a metrics file: a row a metric, a column a question type."""
    title = find_task(result["benchmark"]).title
    limit = result.get("limit")
    asked = (
        f", the first {limit['questions']} of {counted(limit['of'], 'question')} only"
        if limit
        else ""
    )
    # Without lines between the columns, SQA3D's question types fit 80 columns.
    heading = f"{title}, run {result['run']}, percent{asked}"
    table = Table(
        title=heading, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    table.add_column("metric", no_wrap=True)
    table.add_column("all", justify="right", no_wrap=True)
    table.add_column("95 %", no_wrap=True)
    for name in result["by_type"]:
        table.add_column(name, justify="right", no_wrap=True)
    for metric, estimate in result["metrics"].items():
        groups = (group["metrics"][metric] for group in result["by_type"].values())
        low, high = estimate["low"], estimate["high"]
        interval = "" if low is None else f"{low:.1f} to {high:.1f}"
        table.add_row(metric, _value(estimate), interval, *map(_value, groups))
    table.add_section()
    counts = (str(group["n"]) for group in result["by_type"].values())
    table.add_row("questions", str(result["n"]), "", *counts)
    return table


def notes(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a reader must know: missing metrics, questions left out, rows without a scene."""
    for metric, estimate in result["metrics"].items():
        if "unavailable" in estimate:
            yield f"{metric} is unavailable: {estimate['unavailable']}"
    if result.get("limit"):
        yield "with a limit on the questions this is not a score of the benchmark"
    if questions := questions_left_out(result):
        yield f"left out, as scans cannot be used: {counted(questions, 'more question')}"
    provenance, title = result["provenance"], find_task(result["benchmark"]).title
    if provenance["predictions_form"] == "field" and provenance["short_of_answers"]:
        yield (
            f"no row holds more than one true answer, and {title} has questions with several, all "
            "of which count in published scores; name its annotation file by --annotations"
        )
    if check := provenance["annotations"]:
        yield f"{result['n']} rows are scored against the true answers of {check['file']}"
        if check["fewer"]:
            yield f"{check['fewer']} of them held fewer true answers than that"
        if check["other"]:
            yield f"{check['other']} of them held true answers that it does not have"
        if result["n"] < check["questions"]:
            yield (
                f"it has {check['questions']} questions: the answers to a part of them are not a "
                "score of the benchmark"
            )
    loose = provenance["rows_without_scene"]
    if loose:
        yield (
            f"no scene is named in {loose} of {counted(result['n'], 'row')}: each counts as a room "
            "of its own, which may make the intervals too narrow; add a field scene, or take the "
            "scenes of the records by threedrs predictions import"
        )
    elif provenance["scenes"] == 1:
        yield "all questions are of one scene, so there are no intervals over scenes"


def _value(estimate: Mapping[str, Any]) -> str:
    return "-" if estimate["value"] is None else f"{estimate['value']:.1f}"
