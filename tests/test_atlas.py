"""The op atlas (docs/atlas): its pages say what the code says, their links lead somewhere, and all can read them."""

import html
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minigrad
import minigrad.functional as F
from minigrad import Tensor

ROOT = Path(__file__).parent.parent
LIBRARIES = ("latex2mathml", "markdown", "pygments")
missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"without {missing}: pip install -e '.[docs]'")
sys.path.append(str(ROOT / "docs"))

from atlas import build, contents, formulas, ladders, listing, programs, words  # noqa: E402
from atlas.exercises import Exercise, read  # noqa: E402

PAGES = ("lrn", "conv2d", "max_pool2d", "relu")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A few pages, without what the emulator counts."""
    out = tmp_path_factory.mktemp("site")
    assert build.build(out, PAGES, counters=False) == []
    return {name: (out / f"{name}.html").read_text(encoding="utf-8") for name in PAGES}


def text_of(piece):
    """What HTML shows; a superscript 2 and a true minus as Python writes them."""
    return html.unescape(re.sub(r"<[^>]+>", "", piece)).replace("−", "-").replace("·", "*").replace("²", "**2")


def cells(page, caption):
    """The cells of the table with this caption, as text."""
    table = next(t for t in re.findall(r"<table>.*?</table>", page, re.DOTALL) if f"<caption>{caption}" in t)
    return [
        [text_of(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    ]


# ---------------------------------------------------------------- what the pages say is what the code says


@pytest.mark.parametrize("name", PAGES)
def test_every_program_prints_what_its_page_says(site, name):
    shown = re.findall(
        r'<pre class="code" tabindex="0"><code>([^§]*?)</code></pre><div class="printed">.*?<code>(.*?)</code>',
        site[name].replace("<pre ", "§<pre ").replace("§<pre ", "<pre "), re.DOTALL,
    )  # fmt: skip
    shown = [(code.rsplit("<code>", 1)[-1], output) for code, output in shown]
    assert len(shown) >= 2
    for code, output in shown:
        hidden = programs.HEAD + (programs.PROOF if "worst_difference(" in code else "")
        assert programs.run(html.unescape(re.sub("<[^>]+>", "", code)) + "\n", hidden).strip("\n") == html.unescape(
            re.sub("<[^>]+>", "", output)
        )


def reference(name, **settings):
    """y, dx and dw of a page's example by the fast face, which the page did not ask."""
    from atlas.ops import conv2d, max_pool2d

    page = {"conv2d": conv2d, "max_pool2d": max_pool2d}[name]
    x = Tensor([[page.X]], dtype="float64", requires_grad=True, device="cpu:0")
    w = None
    if name == "conv2d":
        w = Tensor([[page.W]], dtype="float64", requires_grad=True, device="cpu:0")
        y = F.conv2d(x, w, Tensor([page.B], dtype="float64"), page.STRIDE, page.PADDING)
    else:
        y = F.max_pool2d(x, page.KERNEL, page.STRIDE, ceil_mode=True)
    y.backward(Tensor([[page.DY]], dtype="float64"))
    return {"y": y.numpy()[0, 0], "dx": x.grad.numpy()[0, 0], **({} if w is None else {"dw": w.grad.numpy()[0, 0]})}


def test_the_terms_of_conv2d_add_up_to_what_the_op_computes(site):
    expected = reference("conv2d")
    for name, array in expected.items():
        rows = cells(site["conv2d"], f"{name}, row by row")
        assert (len(rows), len(rows[0])) == array.shape
        for (i, j), value in np.ndenumerate(array):
            terms, _, total = rows[i][j].partition("=")
            assert eval(terms) == float(total) == value, (name, i, j, rows[i][j])


@pytest.mark.parametrize(
    "n, kernel, stride, padding", [(5, 3, 2, 0), (8, 3, 3, 1), (9, 4, 3, 0), (7, 3, 1, 2), (6, 2, 4, 1)]
)
def test_dy_with_gaps_and_border_makes_dx(n, kernel, stride, padding):
    """As the page says it: s - 1 zeros between, k - 1 - p around, and the rows that the floor left over at the end."""
    from atlas.ops.conv2d import with_gaps

    random = np.random.default_rng(0)
    x = Tensor(random.standard_normal((1, 1, n, n)), requires_grad=True)
    w = random.standard_normal((1, 1, kernel, kernel))
    y = F.conv2d(x, Tensor(w), stride=stride, padding=padding)
    dy = random.standard_normal(y.shape)
    y.backward(Tensor(dy))
    spread = with_gaps(dy[0, 0], n, kernel, stride, padding)
    again = F.conv2d(Tensor(spread[None, None]), Tensor(w[:, :, ::-1, ::-1].copy()))
    np.testing.assert_allclose(again.numpy(), x.grad.numpy(), atol=1e-12)


def test_the_own_slope_of_lrn_falls_below_0(site):
    told = text_of(re.search(r"In the\s+player below, (.*?)</p>", site["lrn"], re.DOTALL)[1])
    x = Tensor(np.array([1.0, 3, 0, 2, -2, 1, 4, 1]).reshape(1, 8, 1, 1), device="cpu:0")
    found = re.findall(r"(-[\d.]+) for x(\d)=(\d)", told)
    assert [(i, value) for _, i, value in found] == [("1", "3"), ("6", "4")], told
    for slope, i, _ in found:
        step = np.zeros(x.shape)
        step[0, int(i)] = 1e-6
        change = (F.lrn(x + Tensor(step), 3, 2, 1, 0.75) - F.lrn(x - Tensor(step), 3, 2, 1, 0.75)).numpy() / 2e-6
        np.testing.assert_allclose(change[0, int(i), 0, 0], float(slope), rtol=0.03)


def test_the_contributions_of_lrn_add_up(site):
    from atlas.ops import lrn

    x = Tensor(np.array(lrn.X).reshape(1, 4, 1, 4), dtype="float64", requires_grad=True, device="cpu:0")
    y = F.lrn(x, lrn.N, lrn.K, lrn.ALPHA, lrn.BETA)
    y.backward(Tensor(np.array(lrn.DY).reshape(y.shape), dtype="float64"))
    found = re.findall(r'<ul class="terms">(.*?)</ul>', site["lrn"], re.DOTALL)
    assert len(found) == 16
    for items, dx in zip(found, x.grad.numpy().ravel()):
        *terms, total = [text_of(item) for item in re.findall("<li>(.*?)</li>", items)]
        values = [float(re.split(r"[=:] ", term)[-1]) for term in terms]
        np.testing.assert_allclose([sum(values), float(total)], dx, rtol=0.01, atol=0.003)  # three digits are shown


def test_the_winners_of_max_pool2d(site):
    expected = reference("max_pool2d")
    rows = re.findall(r"<td[^>]*>dx\[(\d),(\d)\]</td>.*?= <strong[^>]*>(\d+)</strong>", site["max_pool2d"])
    found = np.zeros((4, 4))
    for h, l, total in rows:
        found[int(h), int(l)] = int(total)
    np.testing.assert_array_equal(found, expected["dx"])


# ---------------------------------------------------------------- the pictures of the rooms, beside the fast face


def pictures(name):
    """The SVGs of a room, one text."""
    from atlas.ops import drawn

    return "".join(re.findall(r"<svg.*?</svg>", "".join(drawn.PICTURES[name]().values()), re.DOTALL))


def numbers(picture, symbol):
    """What stands in the cells of a symbol, in the order of drawing."""
    found = re.findall(rf'<text class="value[^"]* s-{symbol}\b[^>]*>([^<]*)</text>', picture)
    return np.array([float(text.replace("−", "-")) for text in found])


def known(*values):
    return [Tensor(value, dtype="float64", requires_grad=True, device="cpu:0") for value in values]


def test_the_bars_and_arrows_of_cross_entropy():
    picture = pictures("cross_entropy")
    logits, true = numbers(picture, "x").reshape(4, 4), [3, 0, 1, 1]
    (x,) = known(logits)
    F.cross_entropy(x, true, "sum").backward()
    p = F.softmax(x, 1).numpy()
    hits = [i for i, kind in enumerate(re.findall(r'<rect class="cell (.*?)"', picture)) if kind == "hit"]
    assert hits == [4 * i + t for i, t in enumerate(true)]
    np.testing.assert_allclose(numbers(picture, "s").reshape(4, 4), p, atol=0.0051)
    np.testing.assert_allclose(numbers(picture, "dx").reshape(4, 4), x.grad.numpy(), atol=0.0051)
    bars = [float(height) for height in re.findall(r'class="bar".*?height="(.*?)"', picture)]
    np.testing.assert_allclose(np.reshape(bars, (4, 4)), 60 * p, rtol=1e-3)
    tips = np.array([float(y) for y in re.findall(r'<polygon points="[^,]+,([^ ]+) ', picture)]).reshape(4, 4)
    zeros = [float(y) for y in re.findall(r'<path d="M220 (\S+) ', picture)]  # of an arrow; SVG's y goes down
    np.testing.assert_allclose(tips - np.reshape(zeros, (4, 1)), 30 * x.grad.numpy(), atol=0.01)
    pushed = -x.grad.numpy()[range(4), true]
    assert pushed.argmin() == 2 and pushed.argmax() == 1  # "the third row hardly moves; the second is pushed most"
    assert p[1].argmax() != true[1]


def test_the_block_of_batch_norm_shares_its_means_as_the_op_does():
    picture = pictures("batch_norm")
    x = numbers(picture, "x").reshape(3, 2, 2, 2).swapaxes(0, 1)  # drawn channel by channel
    y = F.batch_norm(Tensor(x, device="cpu:0"), None, None, training=True).numpy()
    np.testing.assert_allclose(numbers(picture, "y").reshape(3, 2, 2, 2).swapaxes(0, 1), y, atol=0.051)
    told = [float(text) for text in re.findall(r">(?:mean|var) ([\d.]+)<", picture)]
    before, after = np.reshape(told, (2, 3, 2))
    np.testing.assert_allclose(before, np.stack([x.mean((0, 2, 3)), x.var((0, 2, 3))], 1))
    np.testing.assert_array_equal(after, [[0, 1]] * 3)


def test_the_three_terms_of_batch_norm_are_those_of_the_op():
    from atlas.ops import drawn

    found = drawn.example("batch_norm")
    x, w, b = known(found["x"].numpy(), [2.0], [1.0])
    F.batch_norm(x, None, None, w, b, training=True).backward(Tensor(found["dy"], device="cpu:0"))
    itself, mean, variance, dx = numbers(pictures("batch_norm"), "dx").reshape(4, 4, 4)
    np.testing.assert_allclose(dx, x.grad.numpy()[0, 0], atol=0.0051)
    np.testing.assert_allclose(itself + mean + variance, dx, atol=0.021)
    assert (itself != 0).sum() == 1 and len(np.unique(mean)) == 1 and (mean < 0).all()
    h = (x.numpy()[0, 0] - x.numpy().mean()) / x.numpy().std()
    assert np.corrcoef(variance.ravel(), h.ravel())[0, 1] == pytest.approx(-1, abs=0.01)


def test_what_the_picture_of_linear_collects():
    from atlas.ops import drawn

    picture, found = pictures("linear"), drawn.example("linear")
    x, w, b = known(*(found[name].numpy() for name in "xwb"))
    y = F.linear(x, w, b)
    y.backward(Tensor(found["dy"], device="cpu:0"))
    for symbol, array in (("y", y), ("dx", x.grad), ("dw", w.grad)):
        np.testing.assert_array_equal(numbers(picture, symbol).reshape(array.shape), array.numpy())
    terms = re.findall(r">(d?[yw]|dx)\[(\d),(\d)\] = ([^<]*?) = ([^ <]+)<", picture)
    assert [name for name, *_ in terms] == ["y", "dx", "dw"]
    for (_, i, j, sum_, total), array in zip(terms, (y, x.grad, w.grad)):
        value = eval(sum_.replace("−", "-").replace("·", "*"))
        assert value == float(total.replace("−", "-")) == array.numpy()[int(i), int(j)]
    filled = [len(re.findall("cell hit", part)) for part in picture.split("</svg>")]
    assert filled == [4 + 4 + 1, 2 + 2 + 1, 4 + 4 + 1, 0]


def test_the_paths_of_sgd_are_those_of_the_formulas():
    from atlas.ops import drawn

    parts = pictures("sgd").split("</svg>")
    for part, (mu, ahead) in zip(parts, [(0, False), (0.8, False), (0.8, True)]):
        w, v, path = np.array([-8.0, 2.0]), np.zeros(2), []
        for _ in range(41):
            path.append(w)
            g = np.array([1.0, 25.0]) * w
            v = mu * v + g
            w = w - 0.03 * (g + mu * v if ahead else v)
        dots = re.findall(r'<circle class="step" cx="(.*?)" cy="(.*?)"', part)
        drawn_at = (np.array(dots, float) - (226, 84)) / (27, -27)
        np.testing.assert_allclose(drawn_at, path, atol=0.001)
        said = [float(text.replace("−", "-")) for text in re.search(
            r">loss (\S+), after 10 steps (\S+), 20: (\S+), 40: ([^<]+)<", part).groups()]  # fmt: skip
        losses = [w @ (np.array([1, 25]) * w) / 2 for w in np.array(path)[[0, 10, 20, 40]]]
        np.testing.assert_allclose(said, losses, rtol=0.05)
    for rate, climbs in ((0.079, False), (0.081, True)):  # "a rate below 2/25"
        walls = abs(drawn_path_at(drawn, rate)[:, 1])
        assert (walls[-1] > walls[0]) == climbs


def drawn_path_at(drawn, rate):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(drawn, "RATE", rate)
        return drawn.path({})


def test_the_maps_of_dropout():
    from atlas.ops import drawn

    x = np.arange(1.0, 17).reshape(4, 4)
    parts = [numbers(part, "y").reshape(4, 4) for part in pictures("dropout").split("</svg>")[:-1]]
    inverted, same, paper, halved = parts
    np.testing.assert_array_equal(inverted, drawn.example("dropout")["y"].numpy())
    minigrad.manual_seed(0)
    np.testing.assert_array_equal(inverted, F.dropout(Tensor(x, device="cpu:0"), 0.5).numpy())
    np.testing.assert_array_equal(paper, inverted / 2)
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(halved, x / 2)
    grey = [re.findall(r'<rect class="cell (\w*)"', part) for part in pictures("dropout").split("</svg>")]
    assert grey[0] == grey[2] == ["hit" if value else "dashed" for value in inverted.ravel()]
    assert re.findall(">(x · [^<]*)<", pictures("dropout")) == ["x · 2, or 0", "x · 1", "x · 1, or 0", "x · 0.5"]


def test_the_curve_and_the_maps_of_relu():
    curve, *maps = pictures("relu").split("</svg>")[:-1]
    values = {name: numbers(part, name).reshape(4, 4) for part, name in zip(maps, ("x", "y", "dy", "dx"))}
    (x,) = known(values["x"])
    y = F.relu(x)
    y.backward(Tensor(values["dy"], device="cpu:0"))
    np.testing.assert_array_equal(values["y"], y.numpy())
    np.testing.assert_array_equal(values["dx"], x.grad.numpy())
    for part in maps:
        kinds = [kind.strip() for kind in re.findall(r'<rect class="cell(.*?)"', part)]
        assert kinds == ["hit" if value > 0 else "dashed" for value in values["x"].ravel()]
    dots = re.findall(r'<circle cx="(.*?)" cy="(.*?)" r="5.5" fill="var\(--(\w+)\)"', curve)
    seen, counts = np.unique(values["x"], return_counts=True)
    places = [((float(px) - 122) / 40, (172 - float(py)) / 40, fill) for px, py, fill in dots]
    assert places == [(value, max(value, 0), "y" if value > 0 else "paper") for value in seen]
    assert [int(count) for count in re.findall(r">(\d+) ×<", curve)] == counts.tolist()


@pytest.mark.parametrize("name", ["cross_entropy", "batch_norm", "linear", "sgd", "dropout", "relu"])
def test_the_pictures_of_rooms_fit_a_phone_and_have_words(name):
    from atlas.ops import drawn

    text = (ROOT / "docs" / "atlas" / "ops" / f"{name}.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\{\{(\w+)\}\}", text)) == {"docstring", *drawn.PICTURES[name]()}
    for part in pictures(name).split("</svg>")[:-1]:
        label, width = re.search(r'<svg role="img" aria-label="([^"]{20,})" viewBox="0 0 (\S+) ', part).groups()
        assert float(width) <= 360, label  # 390, less the margins of the page
        colours = set(re.findall(r"var\(--(\w+)\)", part))
        assert colours <= set(palettes()["light"])


@pytest.mark.parametrize("name", ["conv2d", "max_pool2d", "lrn"])
def test_players_have_the_numbers_of_the_op(site, name):
    key = {"conv2d": "conv", "max_pool2d": "pool", "lrn": "lrn"}[name]
    data = json.loads(re.search(rf'id="{key}-data">(.*?)</script>', site[name], re.DOTALL)[1])
    tried = 0
    for choice in itertools.product(*data["choices"].values()):
        found = data["results"].get(",".join(f"{value:g}" for value in choice))
        if name == "lrn":
            x = Tensor(np.array(data["x"]).reshape(1, -1, 1, 1), dtype="float64", device="cpu:0")
            np.testing.assert_allclose(F.lrn(x, *choice).numpy().ravel(), found["y"], rtol=1e-3)
            step = np.zeros(x.shape)
            step[0, 4] = 1e-6  # the slopes of every y by x_4, by differences
            slopes = (F.lrn(x + Tensor(step), *choice) - F.lrn(x - Tensor(step), *choice)).numpy().ravel() / 2e-6
            np.testing.assert_allclose(np.reshape(found["slopes"], (8, 8))[:, 4], slopes, rtol=2e-3, atol=1e-6)
        else:
            x = Tensor([[data["x"]]], dtype="float64", requires_grad=True, device="cpu:0")
            try:
                if name == "conv2d":
                    size, stride, padding, dilation = choice
                    w = Tensor([[[row[:size] for row in data["w"][:size]]]], dtype="float64")
                    y = F.conv2d(x, w, None, stride, padding, dilation)
                else:
                    y = F.max_pool2d(x, *choice[:3], ceil_mode=bool(choice[3]))
            except minigrad.ShapeError:
                assert found is None
                continue
            y.sum().backward()
            assert (y.numpy()[0, 0].tolist(), x.grad.numpy()[0, 0].tolist()) == (found["y"], found["dx"])
        tried += 1
    assert tried >= 36


def test_errors_stand_on_the_page_as_they_are_raised(site):
    with pytest.raises(minigrad.ArgumentError) as error:
        F.lrn(minigrad.zeros(1, 96, 55, 55), n=4)
    assert f"ArgumentError: {html.escape(str(error.value))}" in site["lrn"]


def test_a_program_that_is_not_refused_makes_no_page():
    with pytest.raises(AssertionError, match="is not refused"):
        programs.refused("F.relu(minigrad.zeros(3))")


def test_a_wrong_gradient_makes_no_page():
    x = "x = minigrad.Tensor([1.0, 2.0], dtype='float64', requires_grad=True)"
    assert programs.proof("lambda x: x * x", "x", x)[1] < 1e-8
    with pytest.raises(AssertionError, match="differ by"):
        programs.proof("lambda x: x * x.detach()", "x", x)


def test_lines_of_a_file_that_are_gone_make_no_page():
    with pytest.raises(LookupError, match="kernels/relu.cu has no 'nothing of the kind'"):
        listing.found_lines("kernels/relu.cu", "nothing of the kind", "}")
    path, first, last = listing.found_lines("kernels/lrn.cu", "struct Maps {", "};")
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    assert lines[first - 1].startswith("struct Maps") and lines[last - 1] == "};"


def test_a_line_stands_beside_its_number():
    lines = (ROOT / "kernels" / "lrn.cu").read_text(encoding="utf-8").splitlines()
    rows = re.findall(
        r'href="([^"]+)">(\d+)</a><span[^>]*>(.*?)</span></span>', listing.excerpt("kernels/lrn.cu", 60, 66)
    )
    assert len(rows) == 7
    for link, number, shown in rows:
        assert link == f"source/kernels.lrn.cu.html#L{number}"
        assert text_of(shown).replace("*", "").strip() == lines[int(number) - 1].replace("*", "").strip()
    for name in ("relu", "lrn"):  # every line whole, #pragma as well, which stands left of all that moves
        path = ROOT / "kernels" / f"{name}.cu"
        text = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        for first in range(1, len(text) - 6):
            shown = re.findall(
                r'<span style="--i:\d+">(.*?)</span></span>', listing.excerpt(f"kernels/{name}.cu", first, first + 6)
            )
            for line, own in zip(shown, text[first - 1 : first + 6], strict=True):
                assert html.unescape(re.sub(r"</?span[^>]*>", "", line + "</span>")).strip() == own.strip()
    whole = listing.source_page("kernels/lrn.cu")
    assert all(f'id="L{n}"' in whole for n in (1, len(lines))) and f'id="L{len(lines) + 1}"' not in whole


# ---------------------------------------------------------------- pages, links, anchors


def test_every_room_and_every_optimiser_has_a_page():
    rooms = {path.stem for path in (ROOT / "minigrad" / "ops").glob("[a-z]*.py")}
    assert rooms | {"sgd", "adam", "rmsprop"} <= set(contents.ENTRIES)


@pytest.mark.parametrize("name", PAGES)
def test_the_engine_is_linked_from_the_text(site, name):
    assert re.search(r'<main.*<a href="engine.html(#diamond)?">the engine</a>', site[name], re.DOTALL)


def test_a_formula_may_break_where_its_author_says_so():
    broken = formulas.formula(r"\y = \x \\ {} - 1", block=True)
    assert re.findall(r"<math.*?</math>", broken) == [
        found
        for part in (r"\y = \x", "{} - 1")
        for found in re.findall(r"<math.*?</math>", formulas.formula(part, True))
    ]


@pytest.mark.parametrize("name", ["lrn", "conv2d", "max_pool2d"])
def test_anchors_that_others_link_to(site, name):
    for anchor in ("formula", "conventions", "picture", "way-back", "example", "play", "derivation", "proof", "faces",
                   "ladder", "mistakes", "exercises", "cite"):  # fmt: skip
        assert f' id="{anchor}"' in site[name], anchor


def test_links_that_lead_nowhere_are_seen(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "a.html").write_text(
        '<p id="one"><a href="b.html#two">b</a><a href="source/c.html">c</a><a href="#one">'
    )
    (tmp_path / "b.html").write_text('<p id="two"><p id="two"><a href="a.html#none">a</a><img src="http://x.y/z.png">')
    (tmp_path / "source" / "d.html").write_text('<a href="../a.html#one">a</a>')
    assert build.broken(tmp_path) == [
        "a.html: a link to source/c.html leads nowhere",
        "b.html: the anchor two is there twice",
        "b.html: a link to a.html#none leads nowhere",
        "b.html: http://x.y/z.png is elsewhere",
    ]
    assert len(build.broken(tmp_path, looked_at=[tmp_path / "a.html"])) == 1
    assert build.broken(tmp_path, [tmp_path / "source" / "c.html"], [tmp_path / "a.html"]) == []


def test_pages_load_nothing_and_are_dated(site):
    for page in site.values():
        assert not re.search(r"""<link|<script[^>]+src|@import|url\(|\bfetch\(|https?://(?!www\.w3\.org/)""", page)
        assert "Made on commit <code>" in page and "@misc{minigrad-" in page


def test_words_and_blocks_must_agree(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A title\nA lead, $\\dx$.\n\n## First {#first}\n\n{{one}}\n\n$$\\x = 1$$\n")
    title, lead, sections = words.page_parts(page, {"one": "<b>1</b>"})
    assert title == "A title" and '<mi class="s-dx">dx</mi>' in lead
    assert sections[0].anchor == "first" and sections[0].body.startswith("<b>1</b>")
    for blocks in ({}, {"one": "", "two": ""}):
        with pytest.raises(LookupError, match="do not agree"):
            words.page_parts(page, blocks)


def test_a_missing_library_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", None)
    assert build.main(["--out", str(tmp_path), "--only", "relu", "--without-counters"]) == 2
    assert "latex2mathml: pip install -e '.[docs]'" in capsys.readouterr().err


# ---------------------------------------------------------------- for all readers


def palettes():
    """{scheme: {name: (r, g, b)}} of the style sheet."""
    text = (ROOT / "docs" / "atlas" / "style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    return {
        scheme: {name: tuple(int(value[k : k + 2], 16) for k in (0, 2, 4))
                 for name, value in re.findall(r"--([\w-]+): #([0-9a-f]{6})", block)}
        for scheme, block in zip(("light", "dark"), blocks)
    }  # fmt: skip


def contrast(one, other):
    """Of two colours, as WCAG 2 defines it."""

    def luminance(colour):
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_can_be_read(scheme):
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    colours = palettes()[scheme]
    grounds = {"paper", "panel", "hit", "wash", "rule"}
    texts = set(colours) - grounds
    assert {"ink", "muted", "link", "x", "dx", "w", "comment"} <= texts
    weak = {
        (text, ground): round(contrast(colours[text], colours[ground]), 2)
        for text in texts
        for ground in ("paper", "panel", *(["hit"] if text in ("x", "w", "y", "dx", "dy", "dw", "ink") else []))
        if contrast(colours[text], colours[ground]) < 4.5
    }  # fmt: skip
    assert weak == {}


@pytest.mark.parametrize("name", PAGES)
def test_pictures_have_words_and_headings_have_an_order(site, name):
    page = re.sub(r"<script.*?</script>", "", site[name], flags=re.DOTALL)
    assert page.count("<h1") == 1 and '<html lang="en">' in page
    for svg in re.findall(r"<svg[^>]*>", page):
        assert re.search(r'role="img" aria-label="[^"]{20,}"', svg), svg
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))
    for field in re.findall(r"<input[^>]*>", page):
        assert f'<label for="{re.search("id=.(.*?)[ >]", field)[1][:-1]}">' in page


@pytest.mark.parametrize("name", ["lrn", "conv2d", "max_pool2d"])
def test_a_symbol_has_its_colour_in_formula_picture_and_code(site, name):
    page = site[name]
    for symbol in ("x", "y", "dx", "dy"):
        assert f'<mi class="s-{symbol}">' in page
        assert re.search(rf'<span style="--i:\d+">[^§]*?<span class="s-{symbol}">\w*{symbol}\w*</span>', page), symbol
    picture = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert all(re.search(rf'<text class="value[^"]* s-{symbol}\b', picture) for symbol in ("x", "y", "dx"))


def test_a_member_of_a_struct_is_no_symbol():
    lines = listing.coloured("c.dw = dw;\nself.w = w", "python", {"dw": "dw", "w": "w"})
    assert lines == [
        'c.dw = <span class="s-dw">dw</span>;',
        'self.<span class="s-w">w</span> = <span class="s-w">w</span>',
    ]


def test_every_symbol_has_a_colour():
    style = (ROOT / "docs" / "atlas" / "style.css").read_text(encoding="utf-8")
    assert [name for name in formulas.SYMBOLS if f".s-{name} {{ color: var(--" not in style] == []


# ---------------------------------------------------------------- counters and exercises


def test_what_was_counted_is_kept_until_a_source_changes(monkeypatch, tmp_path):
    pytest.importorskip("nvidia", reason="the digest names the version of NVRTC")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "kernel.cu").write_text("one")
    monkeypatch.setattr(ladders, "ROOT", tmp_path)
    monkeypatch.setattr(ladders, "SOURCES", ("kernel.cu",))
    made = []

    def make():
        made.append(1)
        return [len(made)]

    assert [ladders._kept("a ladder", make) for _ in range(2)] == [[1], [1]]
    (tmp_path / "kernel.cu").write_text("two")
    assert ladders._kept("a ladder", make) == [2]


def exercises():
    import atlas.engine_page
    import atlas.ops.conv2d
    import atlas.ops.lrn
    import atlas.ops.max_pool2d

    pages = atlas.ops.lrn, atlas.ops.conv2d, atlas.ops.max_pool2d, atlas.engine_page
    found = [exercise for page in pages for exercise in page.EXERCISES]
    for path in sorted((ROOT / "docs" / "atlas" / "ops").glob("*.md")):
        found += map(read, re.findall(r"^```break\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.M))
    return found


def test_the_lines_of_exercises_are_there_and_so_are_their_tests():
    assert len(exercises()) >= 12
    for exercise in exercises():
        assert exercise.text() != (ROOT / exercise.file).read_text(encoding="utf-8")
        tests = (ROOT / exercise.tests).read_text(encoding="utf-8")
        assert all(f"def {name}(" in tests for name in (*exercise.red, *exercise.green))
    with pytest.raises(ValueError, match="0 times"):
        assert Exercise("minigrad/ops/relu.py", "no such line", "", "tests/test_relu.py", (), "").number


@pytest.mark.slow
def test_breaking_the_line_turns_those_tests_red(tmp_path):
    """Every exercise, done in a copy of the repository."""
    for folder in ("minigrad", "kernels", "tests", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    surroundings = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "CI": "1"}
    wrong = []
    for exercise in exercises():
        target = tmp_path / exercise.file
        whole = target.read_text(encoding="utf-8")
        target.write_text(exercise.text(), encoding="utf-8")
        chosen = " or ".join((*exercise.red, *exercise.green))
        surroundings["MINIGRAD_TEST_DEVICE"] = exercise.device or "cpu:0"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", exercise.tests, "-k", chosen, "-rfp", "--tb=no", "-p", "no:cacheprovider"],
            cwd=tmp_path, env=surroundings, capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        target.write_text(whole, encoding="utf-8")
        failed, passed = ({line.split("::")[1].split("[")[0].split(" ")[0] for line in done.stdout.splitlines()
                           if line.startswith(kind)} for kind in ("FAILED", "PASSED"))  # fmt: skip
        if not (set(exercise.red) <= failed and set(exercise.green) <= passed - failed):
            wrong.append(f"{exercise.file}: {exercise.broken.strip()}: red {failed}, green {passed - failed}")
    assert wrong == []
