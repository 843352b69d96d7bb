"""Progress bars: a bar on a terminal, plain lines in a log."""

import io

import pytest

from koa_hf.progress import ProgressBar, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """tqdm's clock, in seconds; it goes only where the test sets it."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def work(bar: ProgressBar, clock: list[float], steps: int, seconds: float) -> None:
    for _ in range(steps):
        clock[0] += seconds
        bar.update()


def test_a_log_gets_one_line_every_30_seconds_and_one_at_the_end(clock):
    log = io.StringIO()
    with ProgressBar(desc="reading", total=100, file=log) as bar:
        work(bar, clock, 29, seconds=1)
        assert log.getvalue() == ""
        work(bar, clock, 32, seconds=1)
        work(bar, clock, 39, seconds=0.5)
    assert log.getvalue().splitlines() == [
        "reading: 30/100, 1 image/s, 01:10 left",
        "reading: 60/100, 1 image/s, 00:40 left",
        "reading: 100/100, 1.24 image/s, done in 01:20",
    ]
    assert "\r" not in log.getvalue()


def test_work_of_less_than_30_seconds_leaves_a_log_empty(clock):
    log = io.StringIO()
    for _ in ProgressBar(range(29), "reading", file=log):
        clock[0] += 1
    assert log.getvalue() == ""


def test_slow_steps_get_one_line_each(clock):
    log = io.StringIO()
    with ProgressBar(desc="reading", total=2, file=log) as bar:
        work(bar, clock, 2, seconds=40)
    assert log.getvalue().splitlines() == [
        "reading: 1/2, 0.025 image/s, 00:40 left",
        "reading: 2/2, 0.025 image/s, done in 01:20",
    ]


def test_a_resumed_count_does_not_speed_up_the_rate(clock):
    log = io.StringIO()
    with ProgressBar(desc="epoch 2/3", total=100, initial=60, unit="batch", file=log) as bar:
        work(bar, clock, 15, seconds=2)
    assert log.getvalue().splitlines()[0] == "epoch 2/3: 75/100, 0.5 batch/s, 00:50 left"


def test_work_without_a_known_total_is_counted(clock):
    log = io.StringIO()
    for _ in ProgressBar(iter(range(40)), "reading", file=log):
        clock[0] += 1
    assert log.getvalue().splitlines()[0].startswith("reading: 30, 1")


def test_a_terminal_gets_a_bar_with_an_estimate_and_is_clean_afterwards(clock):
    terminal = Terminal()
    with ProgressBar(desc="reading", total=100, file=terminal, ncols=80) as bar:
        work(bar, clock, 50, seconds=1)
    drawn = terminal.getvalue()
    assert "50/100 [00:50<00:50,  1.00image/s]" in drawn
    assert "\n" not in drawn
    assert drawn.split("\r")[-2].strip() == ""


def test_progress_is_written_to_stderr_and_only_where_it_is_wanted(clock, capsys):
    for show in (True, False):
        with progress_bar("reading", 60, show) as advance:
            clock[0] += 30
            advance(40)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert ("reading: 40/60" in captured.err) == show
