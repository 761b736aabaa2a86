"""JSON of other programs, checked against the fields that are used of it.

A reader writes the fields as an `ExternalRow`, and gets its values typed or one line that names
file, entry and field. Some 40,000 rows take a fraction of a second.
"""

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError

from threedrs.config.section import describe_problem
from threedrs.errors import DataError
from threedrs.io.files import read_json

T = TypeVar("T")
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_adapter = cache(TypeAdapter)


def _check_text(text: str) -> str:
    # JSON can spell what UTF-8 cannot.
    if not text.isascii() and _HALF_PAIR.search(text):
        raise ValueError("holds half a surrogate pair, which is not a character")
    return text


ExternalText = Annotated[str, AfterValidator(_check_text)]
"""A string that UTF-8 can spell, for what goes on into results."""


class ExternalRow(BaseModel):
    """The fields that are used of another program's JSON object; it may have more.

    Types are exact: "5", 5.0 and true are not integers, and numbers are finite. A validator raises
    ValueError with a clause that follows the name of its field.
    """

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)


def check_external(value: Any, form: type[T], where: str, remedy: str) -> T:
    """Return a value of another program's JSON as ``form``, a row or a list or mapping of rows.

    Raises:
        DataError: it is not of this form; the line has ``where``, entry and field of the first
            fault, what stands there, and ``remedy``.
    """
    adapter = _adapter(form)  # type: ignore[arg-type]  # every type is hashable
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        line = describe_problem(problem, adapter.json_schema())
        # Of a list, the path begins with the index of the entry; of the value itself it is empty.
        line = line.removeprefix("file: ").removeprefix(": ")
        entry = "entry " if isinstance((problem["loc"] or ("",))[0], int) else ""
        raise DataError(f"{where}: {entry}{line}; {remedy}") from None


def read_external_json(path: Path, form: type[T], remedy: str) -> T:
    """Return the JSON value of a file from another program, as `check_external` does.

    Raises:
        DataError: the file is missing, not JSON, or not of this form.
    """
    return check_external(read_json(path), form, str(path), remedy)
