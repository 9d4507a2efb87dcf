"""The demo's verdict: each kind of thing that can go wrong is found in doctored records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from taskd.cli.output.text import Look
from taskd.demo import verdict
from taskd.demo.verdict import Figures, Line, Row, Told, Work

MOVED = Work(
    name="hash_files",
    on_deploy="checkpoint",
    revisions=("r1", "r2"),
    args={},
    files=["a", "b", "c"],
)

LINES = [
    Line(1, 1, "r1", 100, "step list"),
    Line(1, 1, "r1", 100, "file a"),
    Line(2, 1, "r1", 300, "file x"),
    Line(1, 2, "r2", 200, "file b"),
    Line(1, 2, "r2", 200, "file c"),
    Line(1, 2, "r2", 200, "step report"),
]

FOUND = {"bytes": 10}
RESULT = FOUND | {"by r1": 1, "by r2": 2}
WELL = Told(RESULT, [1, 2, 5], [1, 2, 5])

FIGURES = Figures(
    pids=(7, 7),
    pause=0.06,
    pings=[0.07, 0.001, 0.001],
    connections_lost=0,
    events=54,
    took=37.2,
)


def judged(lines: Sequence[Line] = LINES, told: Told = WELL, **changes: Any) -> Row:
    return verdict.judge(1, MOVED._replace(**changes), FOUND, lines, told)


def with_line(at: int, **changes: Any) -> list[Line]:
    return [line._replace(**changes) if n == at else line for n, line in enumerate(LINES)]


def test_a_task_that_went_as_it_should_has_no_problem() -> None:
    row = judged()
    assert row.problems == []
    assert (row.ran, row.done, row.repeated, row.is_right) == ({"r1": 1, "r2": 2}, 3, 0, True)


def test_an_item_without_a_line_was_lost() -> None:
    row = judged([line for line in LINES if line.item != "file b"])
    assert "1 lost: file b" in row.problems
    assert row.done == 2


def test_an_item_with_two_lines_was_repeated() -> None:
    row = judged([*LINES[:4], LINES[3], *LINES[4:]])
    assert "1 repeated: file b" in row.problems
    assert (row.done, row.repeated) == (3, 1)


def test_a_step_counts_as_an_item_does() -> None:
    assert "1 lost: step report" in judged(LINES[:-1]).problems
    assert "1 repeated: step list" in judged([LINES[0], *LINES]).problems
    assert judged([LINES[0], *LINES]).repeated == 1


def test_a_line_that_nobody_asked_for_is_found() -> None:
    assert "1 not asked for: file z" in judged(with_line(1, item="file z")).problems
    other = judged()._replace(task=2)
    assert verdict.problems([judged()], FIGURES, LINES) == ["1 not asked for: task 2: file x"]
    assert verdict.problems([judged(), other], FIGURES, LINES) == []


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([LINES[0], LINES[3], LINES[1], *LINES[4:]], id="the old attempt goes on"),
        pytest.param(with_line(4, pid=201), id="one attempt in two processes"),
        pytest.param(with_line(4, attempt=1, pid=100), id="back to the first"),
    ],
)
def test_two_processes_at_once_are_found_by_the_order_of_lines(lines: list[Line]) -> None:
    assert any("two processes" in why for why in judged(lines).problems)


def test_a_task_that_ran_on_the_wrong_code_is_found() -> None:
    assert judged(revisions=("r1",)).problems == ["ran on r1 then r2, and should have run on r1"]
    stayed = [line._replace(revision="r1") for line in LINES]
    assert "ran on r1, and should have run on r1 then r2" in judged(stayed).problems
    assert "ran on nothing, and should have run on r1 then r2" in judged([]).problems


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ("failed: ValueError: no", "it ended as failed: ValueError: no"),
        ("held", "it ended as held"),
        ("succeeded", "it ended as succeeded"),
        (RESULT | {"bytes": 11}, "bytes is 11 in its result, and should be 10"),
        ({"by r1": 1, "by r2": 2}, "bytes is None in its result, and should be 10"),
        (RESULT | {"more": None}, "more is None in its result, and should be None"),
        (RESULT | {"by r2": 1}, "by r2 is 1 in its result, and should be 2"),
    ],
)
def test_a_wrong_end_or_result_is_found(result: dict[str, Any] | str, problem: str) -> None:
    row = judged(told=WELL._replace(result=result))
    assert row.problems == [problem]
    assert not row.is_right


def test_a_shell_command_has_no_steps_and_does_not_count_itself() -> None:
    plain = WELL._replace(result={"bytes": 10})
    files = [line for line in LINES if "step" not in line.item]
    assert judged(files, plain, is_command=True).problems == []
    assert judged(files, plain).problems != []
    assert judged(told=plain).problems != []


def test_a_stream_with_a_gap_a_repeat_or_another_order_is_found() -> None:
    for seen in ([1, 5], [1, 2, 2, 5], [1, 5, 2], [1, 2, 5, 6]):
        problem = f"its stream of events was {seen}, and its history [1, 2, 5]"
        assert judged(told=WELL._replace(seen=seen)).problems == [problem]


def test_the_tally_is_read_as_it_is_written() -> None:
    assert verdict.parse("1\t2\tr2\t33\tfile a b.py\n") == [Line(1, 2, "r2", 33, "file a b.py")]
    for damaged in (
        "1\t2\tr2\t33",
        "x\t2\tr2\t33\tfile a",
        "1\t2\tr2\tfile a",
        "1\t2\tr2\t3\ta\tb",
    ):
        with pytest.raises(ValueError, match="line 1 of the tally"):
            verdict.parse(damaged)


def test_a_good_page_ends_with_one_line_and_fits_in_80_columns() -> None:
    lines = verdict.page([judged()], FIGURES, [], Look(unicode=True, width=80))
    assert lines[-1] == "Nothing was lost, repeated or wrong. It took 37 seconds."
    assert max(map(len, lines)) < 80
    assert any("70 ms, the longest of 3 pings around it (usually 1 ms)" in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"connections_lost": 1}, "1 connections dropped"),
        ({"pings": []}, "no ping was answered during the deploy"),
        ({"pids": (7, 8)}, "the daemon was process 7, now 8"),
    ],
)
def test_what_belongs_to_no_task_spoils_the_conclusion_too(
    changes: dict[str, Any], why: str
) -> None:
    figures = FIGURES._replace(**changes)
    wrong = verdict.problems([judged()], figures, [])
    assert wrong == [why]
    lines = verdict.page([judged()], figures, wrong, Look())
    assert lines[-2:] == ["Something was lost, repeated or wrong:", f"  {why}"]


def test_a_wrong_row_is_named_in_the_conclusion_and_marked_in_the_table() -> None:
    row = judged(LINES[:-1], WELL._replace(result="failed"))
    lines = verdict.page([row], FIGURES, verdict.problems([row], FIGURES, []), Look())
    assert lines[1].endswith("WRONG")
    assert any(line.strip() == "task 1: 1 lost: step report" for line in lines)
