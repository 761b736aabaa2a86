"""The training curves of the report, thinned to what a screen shows."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from threedrs.report.question_columns import pack
from threedrs.report.results import Results
from threedrs.report.scores import run_colours

# Fields of the training log and what the page calls them.
CURVES = {
    "text": "text loss",
    "grounding": "grounding loss",
    "supervision": "3D supervision loss",
    "samples_per_second": "samples a second",
}
MOST_POINTS = 600  # of a curve; a screen shows fewer


def training_curves(results: Results) -> dict[str, dict[str, pd.Series]]:
    """Return the curves of losses, throughput and scores on the way.

    Name of a curve -> run that has it -> its values by step, at most ``MOST_POINTS``, each the mean
    of its neighbours.
    """
    # The scores of an evaluation on the way lie two levels below its field.
    logs = {
        run: pd.json_normalize(rows, sep=":").set_index("step")
        for run, rows in results.histories().items()
    }
    fields = CURVES | {
        f"eval:{column.benchmark}:{column.metric}": f"{column.full_title}, on the way"
        for column in results.columns
    }
    curves: dict[str, dict[str, pd.Series]] = {}
    for field, name in fields.items():
        for run, log in logs.items():
            values = log[field].dropna() if field in log else pd.Series()
            # A run without a teacher has no supervision loss: its flat zero is not drawn.
            if values.any():
                places = np.array_split(np.arange(len(values)), min(len(values), MOST_POINTS))
                means = [float(f"{values.iloc[part].mean():.4g}") for part in places]
                steps = values.index[[part[-1] for part in places]]
                curves.setdefault(name, {})[run] = pd.Series(means, index=steps)
    return curves


def quarters(values: pd.Series) -> list[float]:
    """Return the mean of each quarter of a curve."""
    return [float(part.mean()) for part in np.array_split(values.to_numpy(), min(4, len(values)))]


def packed_curves(curves: Mapping[str, Mapping[str, pd.Series]], runs: Sequence[str]) -> str:
    """Return the curves as the page has them: base64 of gzipped JSON."""
    content = {
        "runs": list(runs),
        "colours": list(run_colours(runs).values()),
        "curves": [
            {
                "name": name,
                "lines": [
                    {"run": runs.index(run), "steps": v.index.tolist(), "values": v.tolist()}
                    for run, v in lines.items()
                ],
            }
            for name, lines in curves.items()
        ],
    }
    return pack(content)
