"""benchmarks/full_scale.py: the arithmetic, by hand; cards' results; and the pieces, small, as they are measured."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from minigrad.gpu.hardware_check import report
from minigrad.gpu.hardware_check.steps import steps, two_columns

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "examples")]
import full_scale as full  # noqa: E402
import full_scale_pieces as pieces  # noqa: E402
from alexnet_options import RECIPES, parse  # noqa: E402
from full_scale import FILES, JPEG, ONE, RAW, TWO  # noqa: E402

GIVEN = pieces.Pieces(
    cores=2,
    batch=128,
    step_s={ONE: 4.0, TWO: 3.2},
    step_core_s={ONE: 7.0, TWO: 6.0},
    waiting={ONE: 0.001, TWO: 0.002},
    peak_mb={ONE: 1600.0, TWO: 1700.0},
    one_view_s={ONE: 0.012, TWO: 0.01},
    ten_views_s={ONE: 0.1, TWO: 0.096},
    view_s={RAW: 0.0005, JPEG: 0.0015, FILES: 0.003},
    sent_s={RAW: 0.0001, JPEG: 0.001, FILES: 0.0025},
    decode_s=0.0024,
    stats_s=0.0035,
    pack_s={RAW: 0.0036, JPEG: 0.0072},
    pack_core_s={RAW: 0.005, JPEG: 0.008},
    picture_bytes={RAW: 200_000.0, JPEG: 20_000.0, FILES: 115_000.0},
    check_bytes_s=1e9,
    disk_pictures_s=500.0,
    checkpoint_bytes=500_000_000,
    checkpoint_s=2.0,
    resume_s=3.0,
    weights_bytes=250_000_000,
    weights_s=1.0,
)


def test_days_of_a_training_on_the_processor():
    t = full.on_processor(GIVEN, TWO, RAW)
    assert (t.step, t.rate, t.bound) == (3.2, 40.0, "computing")
    assert t.training == pytest.approx(2_882_592)  # 90 epochs of 10,009 steps
    assert t.tests == pytest.approx(45_000)  # 90 of 50,000 pictures
    assert t.checkpoints == pytest.approx(90 * (54 * 2 + 1))  # an epoch has 32,028.8 s: 53 within, one at its end
    assert t.ten_views == pytest.approx(4_800)
    assert t.seconds == pytest.approx(2_942_202) and full.days(t.seconds) == "34.1"


def test_another_source_costs_the_cores_that_compute():
    t = full.on_processor(GIVEN, TWO, FILES)
    assert t.step == pytest.approx(3.2 + 128 * 0.0025 / 2)
    assert t.tests == pytest.approx(90 * 50_000 * (0.01 + 0.0025 / 2))
    assert t.ten_views == pytest.approx(50_000 * (0.096 + 0.0025 / 2))
    assert full.on_processor(GIVEN, ONE, RAW).step == 4.0


@pytest.mark.parametrize(
    "change, bound, step",
    [
        ({}, "computing", 3.2),
        ({"disk_pictures_s": 20.0}, "the disk", 6.4),
        ({"view_s": {**GIVEN.view_s, RAW: 0.1}}, "loading", 3.2),  # the step was measured with that
    ],
)
def test_what_bounds_a_processor_is_named(change, bound, step):
    given = replace(GIVEN, **change)
    t = full.on_processor(given, TWO, RAW)
    assert (t.bound, t.step) == (bound, pytest.approx(step))
    row = next(line for line in full.training_table(given, []) if TWO in line and RAW in line)
    assert f"| {bound} |" in row


def test_a_card_waits_for_what_is_slower():
    card = full.Card("X", full.ALONE, step_s=0.008, view_s=2e-5, cores=8)  # 16,000 images/s
    rich = full.on_card(GIVEN, replace(card, cores=16), RAW)  # whose cores load 160,000
    assert (rich.bound, rich.rate) == ("the card", pytest.approx(16_000))
    assert rich.training == pytest.approx(90 * 10_009 * 0.008)
    assert rich.tests == pytest.approx(90 * 50_000 * 2e-5) and rich.ten_views == pytest.approx(50_000 * 2e-4)
    assert rich.checkpoints == pytest.approx(90 * (2 + 1))  # an epoch has 80 s
    poor = full.on_card(GIVEN, card, FILES)
    assert (poor.bound, poor.rate) == ("loading", pytest.approx(8 / 0.0025))
    assert poor.tests == pytest.approx(90 * 50_000 * 0.0025 / 8)
    assert poor.ten_views == pytest.approx(50_000 * 0.0025 / 8)


def test_gigabytes():
    assert full.store_bytes(GIVEN, RAW) == 1_331_167 * 200_000
    assert full.packing_room() == 1_252 * 786_432  # shards of 1,024 pictures
    assert full.run_bytes(GIVEN) == 4 * 500_000_000 + 250_000_000
    table = "\n".join(full.storage_table(GIVEN))
    for row in (
        "| ILSVRC-2012's two tars | 154.6 |",
        "| raw store | 266.2 | 1.0 GB more",
        "| JPEG store | 26.6 |",
        "| a checkpoint | 0.50 |",
        "| tars, raw store and a run | 424.1 |",
        "| tars, JPEG store and a run | 184.5 |",
        "| raw store and a run | 268.5 |",
        "| JPEG store and a run | 28.9 |",
    ):
        assert row in table


def test_what_the_page_says_of_given_pieces():
    text = "\n".join(full.block(GIVEN, []))
    for words in (
        "Packing** on 2 cores takes 1.3 hours to a raw store (278 pictures/s; 200 for each core",
        "2.7 to a JPEG store (139 pictures/s; 125)",
        "takes a processor 4 minutes (1000 MB/s)",
        "takes 8.9 hours, its test with one view 8 minutes, the test with ten views at the end 1.3 hours",
        "costs 10 minutes at most, and up to 18 in a test",
        "takes 2.0 s, 0.3% of ten minutes; to go on from it 3.0 s",
        "has to give 8.0 MB/s to a training from a raw store, 40 pictures a second",
        "waited for data 0.20% of their time",
        "did 208 to 250 images/s: 5.2 to 6.2 times what",
        "| `cpu:0,cpu:1` | raw store | 3.2 | 40 | 33.4 | 0.6 | 0.1 | **34.1** | computing | 1.8 |",
        "| the paper: two GTX 580 3GB |  |  | 208 to 250 |  |  |  | **5 to 6** |  | 2 x 3 |",
        "| a card |  | not yet run on hardware |",
        "| two cards |  | not yet run on hardware |",
        # 2 cores at 2.5 ms: 800 pictures/s, a step of 128 in 160 ms; 115 KB each
        "| the files | 2.50 | 400 | 800 | 160 | 1.67 | 2.50 | 115 |",
    ):
        assert words in text, words
    table = "\n".join(full.pieces_table(GIVEN))
    assert "| packing a picture | a core, JPEG store | 8.00 ms |" in table and "| 2.00 s to write |" in table
    assert json.loads(json.dumps(full.facts(GIVEN, [])))["measured"]["step_s"][TWO] == 3.2


def test_the_constants_are_the_main_job_s():
    options = parse(["--no-figures", "--preset", "paper"])
    assert (full.EPOCHS, full.BATCH) == (RECIPES["paper"].epochs, RECIPES["paper"].batch_size)
    assert full.CHECKPOINT_S == 60 * options.checkpoint_minutes and full.KEPT == options.keep_checkpoints + 2
    assert RECIPES["paper"].accumulate == 1


# ---------------------------------------------------------------- cards


def test_cards_are_read_from_what_the_hardware_check_writes(tmp_path):
    labels = []
    part = SimpleNamespace(head=lambda *_: None, work=lambda jobs, _: labels.extend(label for label, _ in jobs))
    steps(part, SimpleNamespace(kind="cuda", name="cuda:0"), 128, False)
    two_columns(part, SimpleNamespace(kind="cuda", name="cuda:0"), 128)
    times = {
        "AlexNet, train step of 128, TF32 off": "9.5 ms",
        "AlexNet, inference of 128": "1.28 ms",
        "AlexNet in two columns, train step of 128": "1.2e+01 ms",
    }
    assert set(times) <= set(labels)
    rows = [(label, times.get(label, "1 ms"), "2 ms, PyTorch", *report.verdict(1.0, 2)) for label in labels]
    lines = ["# Hardware check: NVIDIA X", "", "2026-11-27, Some CPU, 24 cores, Python 3", "", "## Steps", ""]
    text = "\n".join([*lines, *report.table(report.COLUMNS, rows)])
    for name, content in (
        ("hardware_nvidia_x.md", text),
        ("hardware_nvidia_x.old.md", text),
        ("hardware_emulated.md", text.replace("NVIDIA X", "EMULATED")),
        ("hardware_failed.md", re.sub(r"\| [\d.e+]+ ms \|.*", "| **failed**: KernelError: 7 ms |", text)),
    ):
        (tmp_path / name).write_text(content)
    assert full.cards(tmp_path) == [
        full.Card("NVIDIA X", full.ALONE, 0.0095, pytest.approx(1e-5), 24),
        full.Card("NVIDIA X", "two columns on one card", 0.012, pytest.approx(0.004 / 128), 24),
    ]
    table = "\n".join(full.training_table(GIVEN, full.cards(tmp_path)))
    assert table.count("NVIDIA X") == 6 and table.count(full.NOT_RUN) == 1
    assert "| NVIDIA X, one device | raw store | 0.0095 |" in table


# ---------------------------------------------------------------- the page


def test_the_tables_of_the_page_are_those_of_the_results_file():
    page = full.PAGE.read_text(encoding="utf-8")
    shown = page.partition(full.BEGIN)[2].partition(full.END)[0]
    results = (full.HERE / "results" / "full_scale.md").read_text(encoding="utf-8")
    for line in filter(None, shown.splitlines()):
        assert line in results.splitlines(), line
    assert len(shown.splitlines()) > 20
    new = full.renewed(page, ["a table"])
    assert new.partition(full.BEGIN)[0] == page.partition(full.BEGIN)[0] and "\n\na table\n\n" in new
    assert new.partition(full.END)[2] == page.partition(full.END)[2] and full.renewed(new, ["a table"]) == new
    with pytest.raises(ValueError, match="markers"):
        full.renewed("no markers", [])


def test_what_is_measured_with_another_blas_than_a_user_s_is_not_kept(monkeypatch, capsys):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.delenv("OPENBLAS_L2_SIZE", raising=False)
    monkeypatch.setattr(full, "measure", lambda *_: pytest.fail("it measures all the same"))
    with pytest.raises(SystemExit):
        full.main(["--write"])
    assert "--write: OPENBLAS_CORETYPE=Haswell: NumPy runs otherwise" in capsys.readouterr().err
    assert "**OPENBLAS_CORETYPE=Haswell**" in full.environment()
    monkeypatch.delenv("OPENBLAS_CORETYPE")
    assert "OPENBLAS" not in full.environment()


def test_write_renews_file_and_page(monkeypatch, tmp_path, capsys):
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "results").mkdir()
    page = tmp_path / "page.md"
    page.write_text(f"above\n{full.BEGIN}\nold\n{full.END}\nbelow\n")
    asked = []
    monkeypatch.setattr(full, "measure", lambda folder, *rest: asked.append(rest) or GIVEN)
    monkeypatch.setattr(full, "HERE", tmp_path)
    monkeypatch.setattr(full, "PAGE", page)
    monkeypatch.setattr(full.os, "getloadavg", lambda: (5.0, 5.0, 5.0))
    full.main(["--quick", "--runs", "2", "--json"])
    assert json.loads(capsys.readouterr().out)["computed"]["processor"][3]["days"] == pytest.approx(34.05, abs=0.01)
    assert "old" in page.read_text() and not (tmp_path / "results" / "full_scale.md").exists()
    full.main(["--write"])
    assert (
        "about 3.0 s where it has them to itself, which makes 31.3 days of steps" in page.read_text()
        and "old" not in page.read_text()
    )
    assert page.read_text().startswith("above\n") and page.read_text().endswith("\nbelow\n")
    assert "**34.1**" in page.read_text() and "**34.1**" in (tmp_path / "results" / "full_scale.md").read_text()
    assert [(amount.rounds, amount.train, *rest) for amount, *rest in asked] == [
        (2, pieces.QUICK.train, 128, 1_281_167),
        (5, pieces.Amount().train, 128, 1_281_167),
    ]
    for wrong in (["--runs", "0"], ["--folder", str(tmp_path / "none")]):
        with pytest.raises(SystemExit):
            full.main(wrong)
    assert "--runs: must be 1 or more, got 0" in (told := capsys.readouterr().err) and "--folder: there is no" in told


# ---------------------------------------------------------------- the pieces, small


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Pictures, packed, and what was measured meanwhile."""
    folder = tmp_path_factory.mktemp("full")
    photographs = pieces.make_pictures(folder / "files", 16, 8, different=4)
    stores = {RAW: folder / "raw", JPEG: folder / "jpeg"}
    return folder, photographs, stores, pieces.packed(folder / "files", stores, 1)


def test_pictures_are_like_imagenet_s(stores):
    _, photographs, made, _ = stores
    assert 105_000 < sum(map(len, photographs)) / 4 < 125_000
    assert len(set(photographs)) == 4
    jpeg = pieces.size_of(made[JPEG] / "train") / 16
    assert 18_000 < jpeg < 24_000 and 196_608 < pieces.size_of(made[RAW] / "train") / 16 < 196_800


def test_packing_reading_and_loading_are_measured(stores):
    folder, photographs, made, packing = stores
    assert all(0 < packing[what][name] < 60 for what in ("pack_s", "pack_core_s") for name in (RAW, JPEG))
    assert pieces.cold(made[RAW]) > 0 and pieces.checked(made[JPEG]) > 0
    found = pieces.loaded(made, folder / "files", photographs, 1, 8)
    for times in (found["view_s"], found["sent_s"]):  # a core's seconds, so that no busy machine turns them round
        assert times[RAW] < times[FILES] and times[RAW] < times[JPEG]
    shard = next((made[JPEG] / "train").glob("*.jpegs"))
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(RuntimeError, match="damaged"):
        pieces.checked(made[JPEG])


def test_a_narrow_net_trains_tests_and_keeps_as_the_main_job_does(stores, tmp_path):
    _, _, made, _ = stores
    does = pieces.trainer(str(made[RAW]), TWO, str(tmp_path / "run"), 10_000, 4, widths=pieces.NARROW)
    rows = does["steps"](2)
    assert len(rows) == 2 and all(wait >= 0 and compute > 0 and core > 0 for wait, compute, core in rows)
    log = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert len(log) == 4 and log[3].startswith(
        "train,1,3,4,0.01,"
    )  # the third step, of 4 pictures, at the paper's rate
    assert min(does["keep"]()) > 0 and does["resume"]() > 0
    assert does["steps"](1) and [path.name for path in sorted((tmp_path / "run" / "checkpoints").iterdir())] == [
        "step-00000003.safetensors"
    ]
    checkpoint, weights = does["sizes"]()
    assert checkpoint == (tmp_path / "run" / "checkpoints" / "step-00000003.safetensors").stat().st_size
    assert weights > 4 * 1000 * 16  # fc8's alone
    assert does["test"](12, False) > 0 and does["test"](9, True) > 0


@pytest.mark.slow
def test_a_quick_run(capsys):
    full.main(["--quick", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert 0 < min(run["days"] for run in found["computed"]["processor"])
    assert found["measured"]["checkpoint_bytes"] > 2 * 4 * 60_965_224
