"""The benchmark's own arithmetic, and that each contender computes what it is timed for."""

from __future__ import annotations

import re
from dataclasses import replace
from math import prod
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import worker
from benchmarks.agreement import agree, dissenters
from benchmarks.contenders import CONTENDERS, FLOOR, OURS, OURS_OUT, contenders_of
from benchmarks.contenders.poolgrad import prepare
from benchmarks.instructions import compare
from benchmarks.plot import plot
from benchmarks.report import document, summary
from benchmarks.results import rows
from benchmarks.workloads import LAYOUTS, WORKLOADS, Case, cases

BY_NAME = {workload.name: workload for workload in WORKLOADS}
PEERS = [name for name in CONTENDERS if name != OURS]

TABLE = """\
(64,24,24,6) 2x2/2
(16,112,112,64) 3x3/2 p1
(4,224,224,64) 2x2/2
(16,35,35,192) 3x3/1 p1
(8,20,20,512) 5x5/1 p2
(4,64,64,64) 13x13/1 p6
(1,1024,1024,1) 31x31/1 p15
(4,512,512,3) 3x3/2 p1
(2,16,56,56,64) 2x2x2/2
(16,8192,64) 4/4
(4,224,224,64) 2x2/2
(16,35,35,192) 3x3/1 p1
(1,1024,1024,1) 31x31/1 p15
(64,7,7,2048) 7x7/7
(8,50,50,256) to 7x7
""".splitlines()


def results(**changed: Any) -> dict[str, Any]:
    """Results in which Poolgrad takes 2 s, with `out` 1.5 s, copying 1 s, and PyTorch 4 s."""
    seconds = {OURS: 2.0, OURS_OUT: 1.5, FLOOR: 1.0, f"{FLOOR} by 2": 1.25, "PyTorch": 4.0}
    times = [
        {
            "workload": case.workload.name,
            "layout": case.layout,
            "pass": case.kind,
            "threads": threads,
            "contender": contender,
            "seconds": taken / threads,
        }
        for threads in (1, 2)
        for case in cases(threads, "")
        for contender, taken in seconds.items()
    ]
    machine = {"cpu": "a CPU", "cpus": 2, "system": "Linux", "python": "3.11.0", "build": "avx2"}
    return {
        "machine": machine, "rounds": 3, "versions": {"PyTorch": "1"}, "missing": [], "wrong": [],
        "times": times,
    } | changed  # fmt: skip


def with_times(name: str, kind: str, layout: str, **seconds: float) -> dict[str, Any]:
    """Results in which some contenders take other times for a case of one thread."""
    changed = results()
    changed["times"] = [
        cell
        for cell in changed["times"]
        if (cell["workload"], cell["pass"], cell["layout"], cell["threads"])
        != (name, kind, layout, 1)
        or cell["contender"] not in seconds
    ] + [
        {
            "workload": name,
            "layout": layout,
            "pass": kind,
            "threads": 1,
            "contender": contender,
            "seconds": taken,
        }
        for contender, taken in seconds.items()
    ]
    return changed


def test_table_has_all_workloads_in_both_layouts_and_every_pass():
    lines = [line for line in document(results()).splitlines() if re.match(r"\| .*\(\d+,", line)]
    for shape in set(TABLE):
        passes = sum(len(w.passes) for w, s in zip(WORKLOADS, TABLE, strict=False) if s == shape)
        shown = [line for line in lines if f"| {shape} |" in line]
        assert len(shown) == passes * len(LAYOUTS) * 2
    assert len(rows(results())) == (10 * 3 + 5 * 2) * len(LAYOUTS) * 2


def test_outputs_are_of_the_shape_that_the_library_gives():
    for workload in WORKLOADS:
        if workload.op != "adaptive" and prod(workload.spatial) < 1e4:
            case = Case(replace(workload, batch=1, channels=1), "channels_first", "forward", 1)
            run = prepare(case).runs[OURS]
            assert run().shape == case.output_shape


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("VGG", "forward", 4 * 64 * (224**2 + 112**2) * 4),
        ("VGG", "argmax", 4 * 64 * (224**2 + 112**2) * 4 + 4 * 64 * 112**2),
        ("VGG", "backward", 4 * 64 * (224**2 + 112**2) * 4 + 4 * 64 * 112**2),
        ("grey image", "argmax", 1024**2 * 3 * 4),  # 961 taps need a wide argmax
        ("average VGG", "backward", 4 * 64 * (224**2 + 112**2) * 4),
        ("adaptive average", "forward", 8 * 256 * (50**2 + 7**2) * 4),
    ],
)
def test_bytes_moved(name, kind, expected):
    for layout in LAYOUTS:
        assert Case(BY_NAME[name], layout, kind, 1).bytes_moved == expected


def test_data_have_no_order_and_no_equals():
    workload = replace(BY_NAME["grey image"], spatial=(512, 512))
    x = Case(workload, "channels_last", "forward", 1).data()[0][0, :, :, 0]
    assert np.unique(x).size == x.size
    assert abs(x).max() <= 4
    for one, other in ((x[1:], x[:-1]), (x[:, 1:], x[:, :-1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02


def test_data_is_the_same_in_both_layouts_and_positive_where_it_is_summed():
    workload = replace(BY_NAME["video"], spatial=(4, 6, 8), channels=3)
    last, first = (Case(workload, layout, "backward", 1).data() for layout in LAYOUTS)
    for one, other in zip(last, first, strict=True):
        np.testing.assert_array_equal(np.moveaxis(one, -1, 1), other)
        assert one.dtype == np.float32
        assert other.flags.c_contiguous
    assert last[1].min() > 0


def test_most_are_right():
    case = Case(BY_NAME["LeNet"], "channels_last", "forward", 1)
    right, wrong = (np.zeros(3, np.float32),), (np.ones(3, np.float32),)
    assert dissenters(case, {}) == []
    assert dissenters(case, {"a": right}) == []
    assert dissenters(case, {"a": right, "b": right}) == []
    assert dissenters(case, {"a": right, "b": wrong}) == ["a", "b"]
    assert dissenters(case, {"a": wrong, "b": right, "c": right}) == ["a"]


def test_agreement_is_bitwise_for_maxima_and_bounded_for_sums():
    one = np.full(3, 2, np.float32)
    near, far = one * np.float32(1 + 2e-7), one * np.float32(1 + 1e-5)
    forward = Case(BY_NAME["LeNet"], "channels_last", "forward", 1)
    assert agree(forward, (one,), (one.copy(),))
    assert not agree(forward, (one,), (near,))
    backward = replace(forward, kind="backward")
    average = replace(forward, workload=BY_NAME["average VGG"])
    for case in (backward, average):
        assert agree(case, (one,), (near,))
        assert not agree(case, (one,), (far,))
        assert not agree(case, (one,), (one[:2],))
        assert not agree(case, (one,), (one * np.float32(np.nan),))


def test_summary_without_a_losing_row():
    assert "**2.00 times** as fast" in summary(results())
    assert ", 0 rows behind" in summary(results())
    assert "1.50 times the floor" in summary(results())
    assert "behind**" not in document(results())


def test_a_losing_row_is_shown_and_counted():
    lost = with_times("VGG", "backward", "channels_last", **{OURS: 5.0})
    (row,) = (row for row in rows(lost) if row.behind)
    assert (row.case.workload.name, row.case.kind, row.case.layout) == (
        "VGG",
        "backward",
        "channels_last",
    )
    assert (
        "| **behind** VGG | (4,224,224,64) 2x2/2 | backward | 5000 | 4000 | PyTorch | **0.80** |"
        in (document(lost))
    )
    assert ", 1 rows behind" in summary(lost)
    assert "VGG, backward, channels last: 0.80 of PyTorch" in summary(lost)


def test_the_best_peer_may_have_another_layout():
    quick = with_times("VGG", "forward", "channels_first", XNNPACK=1.0)
    (last, first) = (
        row
        for row in rows(quick)
        if (row.case.workload.name, row.case.kind, row.case.threads) == ("VGG", "forward", 1)
    )
    assert (last.peer, last.best) == ("XNNPACK (channels first)", 1.0)
    assert (first.peer, first.best) == ("XNNPACK", 1.0)


def test_what_is_missing_or_wrong_is_named():
    where = {"workload": "VGG", "layout": "channels_last", "pass": "forward", "threads": 1}
    told = document(results(missing=["JAX"], wrong=[where | {"contender": "SciPy"}]))
    assert "left out: JAX." in told
    assert "WRONG: SciPy, VGG, forward, channels_last, threads 1." in told


def test_results_of_some_rows_are_enough():
    some = results()
    some["times"] = [cell for cell in some["times"] if cell["workload"] == "LeNet"]
    assert "LeNet" in document(some)
    assert "## Small calls" not in document(some)
    assert document(results(times=[]))


def test_plot_has_a_mark_for_each_row():
    drawn = ElementTree.fromstring(plot(rows(results())))
    circles = drawn.findall("{http://www.w3.org/2000/svg}circle")
    legend = 5
    assert len(circles) == legend + 2 * len(
        [row for row in rows(results()) if row.case.threads == 1]
    )
    assert ElementTree.fromstring(plot([])) is not None


def test_instruction_counts_are_compared():
    kept = {"avx2": {"a": 1000, "b": 1000}}
    lines, worse = compare(kept, {"avx2": {"a": 1030, "b": 900, "c": 5}, "baseline": {"a": 9}})
    assert not worse
    assert [line.split()[-1] for line in lines] == ["+3.0%", "-10.0%", "new", "new"]
    lines, worse = compare(kept, {"avx2": {"a": 1031}})
    assert worse
    assert lines[0].endswith("MORE")


def tiny():
    """Every case of the peers' table on an array of next to nothing, with its window kept."""
    for case in cases(1, ""):
        w = case.workload
        if w.group == "peers":
            spatial = w.spatial if w.whole else tuple(4 * k for k in w.size)
            if w.size[0] > 9:
                spatial = tuple(k + 3 for k in w.size)
            yield replace(case, workload=replace(w, batch=2, spatial=spatial, channels=3))


@pytest.fixture(scope="module")
def expected():
    """The results of Poolgrad."""
    found = {}
    for case in tiny():
        prepared = prepare(case)
        found[case] = prepared.arrays(prepared.runs[OURS]())
        for run in prepared.runs.values():
            run()
    return found


@pytest.mark.parametrize("name", PEERS)
def test_contender_computes_the_same(name, expected):
    with worker.process() as process:
        if process.submit(worker.load, name).result() is None:
            pytest.skip(f"{name} is not installed")
        had = {case: process.submit(worker.prepare, name, case).result() for case in expected}
        assert name in contenders_of(next(iter(expected)))
        assert any(had.values())
        for case, warm in had.items():
            if warm:
                assert agree(case, expected[case], warm.result), case
        assert all(seconds > 0 for seconds in process.submit(worker.time, 0).result().values())
