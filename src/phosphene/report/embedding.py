"""The page of a map: every image as a picture that can be pointed at, zoomed into, searched for and rearranged.

One HTML document that needs no other file: the thumbnails are one JPEG in it, and its Content-Security-Policy lets nothing
run but its own script, and nothing be asked for.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from phosphene import images
from phosphene.jobs.command import command_line
from phosphene.jobs.embed import TITLES, told
from phosphene.jobs.outcome import Outcome
from phosphene.jobs.thumbnails import colours_of, spread

TABLE = "points.csv"
_QUALITY = 82  # of the JPEG


def page(outcome: Outcome, parameters: dict[str, Any]) -> str:
    """The page of `phosphene embed`: its outcome and its parameters as HTML."""
    facts = outcome.facts
    classes = _classes(facts)
    maps = [*((name, TITLES[name]) for name in facts["trust"]["maps"]), ("grid", "Grid")]
    script, small = _read("embedding.js"), outcome.arrays["thumbnails"]
    columns = math.ceil(math.sqrt(len(small)))
    lead, *words = told(facts)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_read("embedding.html.j2")).render(
        title=f"What {facts['net']} takes for alike", lead=lead, words=words, count=facts["images"], maps=maps,
        classes=list(classes.items()), header=_header(facts), rows=_rows(facts), table=TABLE,
        command=command_line("embed", parameters), style=Markup(_read("embedding.css")), script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        atlas=_atlas(small, columns), data=_json(_data(outcome, [name for name, _ in maps], classes, columns)),
    )  # fmt: skip


def _classes(facts: Mapping[str, Any]) -> dict[str, str]:
    """Class -> its colour in CSS."""
    kinds = [row["class"] for row in facts["points"] if row["class"] is not None]
    return {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in colours_of(kinds).items()}


def _header(facts: Mapping[str, Any]) -> list[str]:
    voted = ["class found"] if "accuracy" in facts["trust"] else []
    return [f"{facts['trust']['neighbours']} nearest kept", "trustworthy", *voted]


def _rows(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    trust = facts["trust"]
    rows = [
        {"key": name, "name": TITLES[name], "cells": [f"{found['preservation']:.1%}", f"{found['trustworthiness']:.3f}",
         *([f"{found['accuracy']:.1%}"] if "accuracy" in trust else [])]}
        for name, found in trust["maps"].items()
    ]  # fmt: skip
    chance = [f"{trust['chance']:.1%}", "0.5", *([f"{trust['largest_class']:.1%}"] if "accuracy" in trust else [])]
    best = ["100%", "1", *([f"{trust['accuracy']:.1%}"] if "accuracy" in trust else [])]
    return [*rows, {"key": "", "name": "features", "cells": best}, {"key": "", "name": "chance", "cells": chance}]


def _data(outcome: Outcome, maps: list[str], classes: Mapping[str, str], columns: int) -> dict[str, Any]:
    """What the script reads; places have the middle of their map at zero."""
    rows = outcome.facts["points"]
    names = list(classes)
    number = {name: place for place, name in enumerate(names)}
    return {
        "names": [row["name"] for row in rows],
        "classes": names,
        "colours": list(classes.values()),
        "kinds": [number[row["class"]] for row in rows] if names else None,
        "order": maps,
        "maps": {name: _places(name, outcome.arrays[name].numpy()) for name in maps},
        "near": outcome.arrays["neighbours"].tolist(),
        "far": np.round(outcome.arrays["distances"].numpy(), 3).tolist(),
        "side": outcome.arrays["thumbnails"].shape[-1],
        "columns": columns,
    }


def _places(name: str, points: np.ndarray) -> dict[str, Any]:
    """Where pictures lie in a map, the side of each, and how wide and high the whole is: 1000 the longer of both."""
    corners, side = (points, 1.0) if name == "grid" else spread(points, 1000.0)
    size = np.nanmax(corners, 0) + side
    scale = 1000 / size.max()
    middle = np.round(scale * (corners + side / 2 - size / 2), 2)
    across, down = ([None if math.isnan(value) else value for value in column] for column in middle.T.tolist())
    wide, high = (scale * size).tolist()
    return {"x": across, "y": down, "side": scale * side, "wide": wide, "high": high}


def _atlas(small: Tensor, columns: int) -> str:
    """All thumbnails `[N, 3, S, S]` uint8 as one JPEG, row by row."""
    tiles = torch.zeros(-(-len(small) // columns) * columns, *small.shape[1:], dtype=torch.uint8)
    tiles[: len(small)] = small
    side = small.shape[-1]
    whole = tiles.unflatten(0, (-1, columns)).permute(2, 0, 3, 1, 4).reshape(3, -1, columns * side)
    data = images.encode(whole.float() / 255, "jpeg", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"


def _json(data: Any) -> Markup:
    """JSON that can stand in a script element: nothing in it ends the element or begins another."""
    text = json.dumps(data, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
