"""A page that shows what was made of many images: light enough for thousands, as its pictures are files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2


def gallery(title: str, rows: Sequence[dict[str, Any]]) -> str:
    """The page as one HTML document without scripts.

    Args:
        title: its heading.
        rows: one for each image: `image` (its path), `target` (what was explained), `maps` (a file) and `pictures`, the
            contact sheet first, each with `file`, `name`, `alt` and `caption`. Files are relative to the page.
    """
    names = list(dict.fromkeys(_kind(picture["name"]) for row in rows for picture in row["pictures"]))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(url=quote, kind=_kind)
    here = Path(__file__)
    template = environment.from_string(here.with_name("gallery.html.j2").read_text(encoding="utf-8"))
    return template.render(title=title, rows=rows, names=names)


def _kind(name: str) -> str:
    """The method of a picture's name, which may have a class behind it."""
    from phosphene.explain import METHODS

    longest = sorted((method for method in METHODS if name == method or name.startswith(f"{method}-")), key=len)
    return longest[-1] if longest else name
