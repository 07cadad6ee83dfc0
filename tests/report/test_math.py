from xml.etree import ElementTree

import pytest

from phosphene.report.math import mathml, parts

CLASS_IMAGE = r"I^* = \arg\max_I\; S_c(I) - \lambda \lVert I \rVert_2^2"
SALIENCY = r"M_{ij} = \max_k \left| \frac{\partial S_c}{\partial I_{kij}} \right|"
GUIDED = r"R^l_i = \mathbb{1}[f^l_i > 0]\,\mathbb{1}[R^{l+1}_i > 0]\,R^{l+1}_i"
GRAD_CAM = (
    r"L_c = \mathrm{ReLU}\Big(\sum_k \alpha_k^c A^k\Big),"
    r"\quad \alpha_k^c = \frac{1}{Z}\sum_{i,j}\frac{\partial S_c}{\partial A^k_{ij}}"
)
SOFTMAX = r"p_c = \frac{e^{S_c}}{\sum_j e^{S_j}}"
FOOLING = r"\mathbf{x}' = \mathbf{x} + \delta,\quad \|\delta\|\ \text{small},\quad \arg\max_c f_c(\mathbf{x}') = t"
ROBUST = r"\min_\theta \max_{\|\epsilon_i\|\le\delta} J_n(\theta, x_i+\epsilon_i, y_i)"
LECTURE = (CLASS_IMAGE, SALIENCY, GUIDED, GRAD_CAM, SOFTMAX, FOOLING, ROBUST)


def tree(latex: str) -> ElementTree.Element:
    return ElementTree.fromstring(mathml(latex))


def text(element: ElementTree.Element) -> str:
    return "".join(element.itertext()).replace("\N{THIN SPACE}", " ")


@pytest.mark.parametrize("latex", LECTURE)
def test_formulas_of_the_lecture(latex: str) -> None:
    math = tree(latex)
    assert math.tag == "math"
    assert math.get("display") == "block"
    assert math.get("alttext") == latex
    assert "\\" not in text(math)
    styles = {node.get("mathvariant") for node in math.iter()} - {None, "normal"}
    assert not styles, "MathML Core knows no other"


def test_arg_max_is_one_operator_with_its_limit_below() -> None:
    limit = next(node for node in tree(CLASS_IMAGE).iter("munder"))
    assert text(limit[0]) == "arg max"
    assert text(limit[1]) == "I"
    assert "arg" not in [node.text for node in tree(CLASS_IMAGE).iter("mi")]


def test_arg_alone_is_a_name() -> None:
    assert [node.text for node in tree(r"\arg z").iter("mi")] == ["arg", "z"]


def test_min_and_max_have_limits_below() -> None:
    assert [text(node[0]) for node in tree(ROBUST).iter("munder")] == ["min", "max"]


def test_upright_letters_are_one_name() -> None:
    names = [node for node in tree(GRAD_CAM).iter("mi") if node.text == "ReLU"]
    assert len(names) == 1
    assert "mathvariant" not in names[0].attrib


def test_one_upright_letter_stays_upright() -> None:
    written = tree(r"\mathrm{d} x")
    assert [node.text for node in written.iter("mtext")] == ["d"]
    assert [node.text for node in written.iter("mi")] == ["x"]


@pytest.mark.parametrize(("latex", "character"), [("1", "𝟙"), ("R", "ℝ"), ("E", "𝔼"), ("k", "𝕜")])
def test_blackboard_bold(latex: str, character: str) -> None:
    assert text(tree(rf"\mathbb{{{latex}}}")) == character


def test_a_prime_is_set_at_full_size() -> None:
    assert text(tree(r"\mathbf{x}'")) == "𝐱′"
    assert not list(tree(r"\mathbf{x}'").iter("msup"))


def test_display_and_inline() -> None:
    assert 'display="inline"' in mathml("x", display=False)
    assert 'display="block"' in mathml("x")


def test_nothing_of_the_formula_becomes_html() -> None:
    written = mathml(r'\text{<script>alert("&")</script>} < 1')
    assert "<script" not in written
    assert text(ElementTree.fromstring(written)) == '<script>alert("&")</script><1'
    assert written.count("<") == written.count(">") == 2 * len(list(ElementTree.fromstring(written).iter()))


def test_what_cannot_be_set_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"can't be set.*nonsense"):
        mathml(r"\nonsense{x}")


def test_parts() -> None:
    assert len(parts(GRAD_CAM)) == 2
    assert parts(r"a,\quad b\qquad c") == ["a,", "b", "c"]
    assert parts(r"\text{a \quad b}") == [r"\text{a \quad b}"]
    assert parts(r"\left( a \quad b \right)") == [r"\left( a \quad b \right)"]
    assert parts(r"\{ a \quad b \}") == [r"\{ a", r"b \}"]
    assert parts("") == []
