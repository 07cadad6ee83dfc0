"""LaTeX to MathML that browsers draw as the lecture's slides do.

latex2mathml does the parsing. What it writes is then put right for MathML Core, the part of MathML that
Chromium, Firefox and Safari share: operators with limits, styled letters, upright names, fences.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import lru_cache
from xml.etree import ElementTree

from latex2mathml.converter import convert_to_element

_LIMITS = ("max", "min", "sup", "inf", "lim", "arg max", "arg min")
_FUNCTIONS = ("arg", "exp", "log", "ln", "sin", "cos", "tan", "tanh", "det", "dim", "ker", "deg", "Pr")
_SCRIPTS = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
_DOUBLE_STRUCK = {"C": "ℂ", "H": "ℍ", "N": "ℕ", "P": "ℙ", "Q": "ℚ", "R": "ℝ", "Z": "ℤ"}
_NORM = "\N{DOUBLE VERTICAL LINE}"
_PRIME = "\N{PRIME}"


@lru_cache(maxsize=256)
def mathml(latex: str, *, display: bool = True) -> str:
    r"""The `<math>` element of a formula, safe to put into an HTML page.

    Args:
        latex: the formula, without dollar signs, as in `p_c = \frac{e^{S_c}}{\sum_j e^{S_j}}`.
        display: set on a line of its own, with limits below operators; False: within a line of text.

    Raises:
        ValueError: the formula has a command that can't be set.
    """
    # A single upright letter would come out slanted; as text it stays upright.
    source = re.sub(r"\\mathrm\{([A-Za-z])\}", r"\\text{\1}", latex)
    # Not latex2mathml's `convert`: that writes the text of the formula into the page as it is, tags and all.
    math = convert_to_element(source, display="block" if display else "inline")
    math.attrib.pop("xmlns", None)
    for node in math.iter():
        node.text = html.unescape(node.text) if node.text else None
    _join_upright_letters(math)
    _style_letters(math)
    _name_functions(math)
    _join_arg(math)
    _put_limits_below(math)
    _set_marks(math)
    for node in math.iter():
        if node.tag != "mtext" and (node.text or "").startswith("\\"):
            raise ValueError(f"the formula {latex!r} can't be set: {node.text} is not known")
    math.set("alttext", latex)
    return ElementTree.tostring(math, encoding="unicode")


def parts(latex: str) -> list[str]:
    r"""The formula cut at each outermost `\quad` or `\qquad`: a narrow screen sets its parts in lines."""
    pieces, depth, start = [], 0, 0
    for token in re.finditer(r"\\q?quad(?![A-Za-z])|\\left(?![A-Za-z])|\\right(?![A-Za-z])|\\.|[{}]", latex):
        text = token.group()
        if text in ("{", "\\left"):
            depth += 1
        elif text in ("}", "\\right"):
            depth -= 1
        elif text.endswith("quad") and depth == 0:
            pieces.append(latex[start : token.start()])
            start = token.end()
    pieces.append(latex[start:])
    return [piece.strip() for piece in pieces if piece.strip()]


def _rows(math: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """The elements that may hold several children side by side, outermost first."""
    yield from (node for node in math.iter() if len(node) > 1)


def _join_upright_letters(math: ElementTree.Element) -> None:
    """`R e L U`, four upright letters, becomes the one name `ReLU`."""
    for row in _rows(math):
        if row.tag not in ("mrow", "math", "mstyle"):
            continue
        last: ElementTree.Element | None = None
        for node in list(row):
            upright = node.tag == "mi" and node.get("mathvariant") == "normal"
            if upright and last is not None:
                last.text = (last.text or "") + (node.text or "")
                row.remove(node)
            else:
                last = node if upright else None
    for name in math.iter("mi"):
        if len(name.text or "") > 1:
            name.attrib.pop("mathvariant", None)  # a name of several letters is upright by itself


def _style_letters(math: ElementTree.Element) -> None:
    """Blackboard bold as characters: browsers know the attribute `mathvariant="normal"` only."""
    for node in math.iter():
        if node.get("mathvariant") != "double-struck":
            continue
        del node.attrib["mathvariant"]
        node.text = "".join(_double_struck(character) for character in node.text or "")


def _double_struck(character: str) -> str:
    if character in _DOUBLE_STRUCK:
        return _DOUBLE_STRUCK[character]
    for first, last, styled in (("0", "9", 0x1D7D8), ("A", "Z", 0x1D538), ("a", "z", 0x1D552)):
        if first <= character <= last:
            return chr(styled + ord(character) - ord(first))
    return character


def _name_functions(math: ElementTree.Element) -> None:
    r"""`\arg`, which latex2mathml leaves as it stands, becomes the name `arg`."""
    for node in math.iter():
        text = node.text or ""
        if node.tag in ("mi", "mo") and text.startswith("\\") and text[1:] in _FUNCTIONS:
            node.tag, node.text = "mi", text[1:]


def _join_arg(math: ElementTree.Element) -> None:
    """`arg` and the `max` that follows are one operator: its limit stands below both."""
    for row in _rows(math):
        for node, following in list(zip(list(row), list(row)[1:])):
            operator = following if following.tag == "mo" else next(iter(following), None)
            if node.text == "arg" and operator is not None and operator.text in ("max", "min"):
                operator.text = f"arg {operator.text}"
                row.remove(node)


def _put_limits_below(math: ElementTree.Element) -> None:
    for node in math.iter():
        if node.tag == "mo" and node.text in _LIMITS:
            node.attrib.update(movablelimits="true", lspace="0", rspace="0.167em")
            node.text = node.text.replace(" ", "\N{THIN SPACE}")
        elif node.tag in _SCRIPTS and len(node) and node[0].tag == "mo" and node[0].text in _LIMITS:
            node.tag = _SCRIPTS[node.tag]


def _set_marks(math: ElementTree.Element) -> None:
    """Brackets and norm bars close to what they hold, an optimum's star on the height of an exponent.

    A prime is set at full size: fonts draw it raised already.
    """
    for node in math.iter("mo"):
        text = node.text or ""
        if text in ("(", "[", "{"):
            node.set("form", "prefix")
        elif text in (")", "]", "}"):
            node.set("form", "postfix")
        elif text == _NORM and node.get("fence") != "true":
            node.attrib.update(stretchy="false", lspace="0", rspace="0")
        elif text == "*":
            node.text = "\N{ASTERISK OPERATOR}"
    for node in math.iter("msup"):
        if (node[1].text or "").strip(_PRIME) == "" and node[1].text:
            node.tag, node[1].tag = "mrow", "mo"
            node[1].attrib.update(lspace="0", rspace="0")
