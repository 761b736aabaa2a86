"""Pages from templates: one environment for all, so that no page forgets to escape a value."""

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from threedrs.io.images import encode_image


def page_environment(package: str) -> jinja2.Environment:
    """Return the environment of the templates in the folder ``templates`` of a package.

    What a template prints is escaped, and a value that it does not get is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"anchor": anchor, "signed": signed}
    return environment


def page_script(package: str, names: Sequence[str]) -> tuple[Markup, str]:
    """Return files of a package's templates joined to one script, and the hash that allows it.

    The hash is as a Content-Security-Policy wants it.
    """
    folder = files(package).joinpath("templates")
    script = "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Markup(script), f"sha256-{digest}"


def data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    """Return an image of ``kind``, JPEG or PNG, as an address that holds it."""
    content = encode_image(image, kind, optimize=True, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"


def anchor(*names: str) -> str:
    """Return an HTML id for the names: distinct names give distinct ids."""
    return "-".join(
        re.sub(r"[^A-Za-z0-9]", lambda found: f"_{ord(found.group()):x}_", name) for name in names
    )


def signed(value: float | None) -> str:
    """Return a number with its sign, a zero without one, and a dash where there is no number."""
    if value is None:
        return "–"
    return f"{value:+.1f}" if round(value, 1) else "0.0"
