import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench import __main__ as bench
from bench import conv, networks, processes, report, timing
from bench.frameworks import Framework, load


def test_names_are_unique() -> None:
    names = [row.name for row in bench.ROWS]
    assert len(set(names)) == len(names)


@pytest.fixture
def faltung() -> Iterator[Framework]:
    (framework,), threads = load(threads=None, with_torch=False)
    yield framework
    framework.lib.set_num_threads(threads)


SMALL = (
    conv.ConvRow("plain", 5, 7, 9, 3, padding=1),
    conv.ConvRow("strided, grouped", 6, 4, 11, 3, stride=2, padding=1, groups=2, batch=2),
    conv.ConvRow("depthwise image", 4, 4, 8, 5, padding=2, groups=4, is_image=True),
    conv.ConvRow("pointwise", 3, 8, 4, 1),
)


@pytest.mark.parametrize("mode", [conv.FORWARD, conv.DIRECT, conv.TRAINING])
@pytest.mark.parametrize("row", SMALL, ids=lambda row: row.name)
def test_conv_case(row: conv.ConvRow, mode: str, faltung: Framework) -> None:
    assert row.case(mode).check(faltung) < 1e-5


def test_conv_check_notices_wrong_answers(faltung: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    case = SMALL[0].case(conv.FORWARD)
    right = case.call(faltung)()
    monkeypatch.setattr(case, "call", lambda framework: lambda: right * 1.001)
    with pytest.raises(AssertionError, match="plain forward: faltung is off by"):
        case.check(faltung)


def test_flop() -> None:
    row = conv.ConvRow("", 64, 64, 56, 3, padding=1)
    assert row.case(conv.FORWARD).flop == 2 * 64 * 64 * 9 * 56 * 56
    assert row.case(conv.TRAINING).flop == 3 * 8 * row.case(conv.FORWARD).flop


def test_network_flop(faltung: Framework) -> None:
    case = networks.ROWS[0].case(networks.STEP)
    case.call(faltung)
    assert case.flop == 3 * 64 * 2 * (16 * 25 * 24 * 24 + 32 * 16 * 25 * 8 * 8 + 512 * 10)


def test_contest_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SAMPLE_S", 0.0)
    monkeypatch.setattr(timing, "SETTLE_S", 0.0)
    calls: list[str] = []
    times = timing.contest({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 0.0, rounds=3)
    assert times.seconds.shape == (3, 2)
    assert (times.seconds > 0).all()
    assert "".join(calls) == "aabb" + "aabb" + "bbaa" + "aabb"  # calibration, then rounds of a warm and a timed call


def test_ratio_is_taken_within_rounds() -> None:
    seconds = np.array([[1.0, 2.0], [10.0, 20.0], [3.0, 9.0]])
    times = timing.Times(("a", "b"), seconds)
    assert times.ratio("b", "a") == 2.0
    assert times.median_s("b") == 9.0


def test_summary() -> None:
    results = [
        report.Result("one", "forward", 1, 10, None, 0.0, {"faltung": 1.0}, 0.5, {"x": 4.0, "y": 8.0}),
        report.Result("two", "forward", 1, 10, None, 0.0, {"faltung": 1.0}, 0.5, {"x": 2.0, "y": 1.0}),
        report.Result("alone", "eval", 1, 10, None, 0.0, {"faltung": 1.0}, 0.5),
    ]
    (line,) = report.summary(results)
    assert line.startswith("forward: 2.00 times")
    assert line.endswith("at least 1.00 (two)")


def test_main(tmp_path: Path, faltung: Framework, capsys: pytest.CaptureFixture[str]) -> None:
    file, picture = tmp_path / "results.json", tmp_path / "out" / "roofline.png"
    assert (
        bench.main(
            ["--quick", "--no-torch", "--rows", "5x5", "--threads", "1", "--json", str(file), "--picture", str(picture)]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "1 threads, FMA peak" in printed
    assert printed.count("5x5 16->32 @12 b64") == 2
    assert picture.read_bytes().startswith(b"\x89PNG")
    results = json.loads(file.read_text())
    assert [row["mode"] for row in results["rows"]] == [conv.FORWARD, conv.TRAINING]
    assert all(row["peak_share"] > 0 for row in results["rows"])


def test_main_without_match(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--rows", "no such row"]) == 2
    assert "ResNet-18" in capsys.readouterr().err


def test_fresh_process() -> None:
    assert 0 < processes.run("import", "faltung", 1) < 60
    assert 0 < processes.run("overhead_recorded", "faltung", 1) < 1
