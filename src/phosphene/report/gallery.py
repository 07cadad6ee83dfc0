"""A page that shows what was made of many images: light enough for thousands, as its pictures are files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

EXPLAINED = (
    "Choose what to look at; a picture leads to its file, which carries its own recipe. Colours that are not an overlay end"
    " at the clip that is printed below them."
)


def gallery(
    title: str,
    rows: Sequence[dict[str, Any]],
    *,
    lead: str = EXPLAINED,
    plot: tuple[str, str] | None = None,
    command: str = "",
    wide: bool = False,
) -> str:
    """The page as one HTML document without scripts.

    Args:
        title: its heading.
        rows: one for each image: `image` (its path), `target` (a heading), `pictures`, each with `file`, `name`, `alt` and
            `caption`, and either `maps` (a file; the first picture is then the contact sheet) or `links` (words and a file).
            Files are relative to the page.
        lead: a paragraph below the title.
        plot: a file above the pictures, and what it shows.
        command: the command line that made it.
        wide: pictures are wider than they are high.
    """
    names = list(dict.fromkeys(_kind(picture["name"]) for row in rows for picture in row["pictures"]))
    explained = any("maps" in row for row in rows)
    rows = [{"links": [("raw maps", row["maps"])] if "maps" in row else [], **row} for row in rows]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(url=quote, kind=_kind)
    here = Path(__file__)
    template = environment.from_string(here.with_name("gallery.html.j2").read_text(encoding="utf-8"))
    return template.render(
        title=title, rows=rows, names=names, lead=lead, plot=plot, command=command, wide=wide, explained=explained
    )


def _kind(name: str) -> str:
    """The method of a picture's name, which may have a class behind it."""
    from phosphene.explain import METHODS

    longest = sorted((method for method in METHODS if name == method or name.startswith(f"{method}-")), key=len)
    return longest[-1] if longest else name
