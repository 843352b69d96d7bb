import time

from koa_hf import files
from koa_hf.demo.batch import Row
from koa_hf.demo.session import Visit, Visits
from koa_hf.grading.result import NotGraded


def visit(size: int) -> Visit:
    return Visit(rows=(Row(NotGraded(file="knee.png", error=""), bytes(size)),))


def test_the_visit_that_nobody_looked_at_for_longest_goes_when_memory_is_short():
    visits = Visits(max_bytes=250, seconds=60)
    first, second = visits.keep(visit(100)), visits.keep(visit(100))
    assert visits.get(first).size == 100
    third = visits.keep(visit(100))
    assert [visits.get(token).size for token in (first, second, third)] == [100, 0, 100]
    large = visits.keep(visit(900))
    assert [visits.get(token).size for token in (first, third, large)] == [0, 0, 900]


def test_a_visit_goes_when_it_is_replaced_forgotten_or_too_old():
    visits = Visits(max_bytes=1000, seconds=0)
    old = visits.keep(visit(1))
    new = visits.keep(visit(2), instead_of=old)
    assert (visits.get(old).size, visits.get(new).size) == (0, 2)
    time.sleep(0.01)
    visits.expire()
    assert visits.get(new).rows == ()
    visits.forget(new)


def test_files_go_in_time_and_the_folders_they_leave_empty_too(tmp_path, monkeypatch):
    for name in ("a/knee.png", "b/c/knee.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    files.delete_older(tmp_path, 3600)
    assert len(list(tmp_path.rglob("*"))) == 5
    later = time.time() + 7200
    monkeypatch.setattr(files.time, "time", lambda: later)
    files.delete_older(tmp_path, 3600)
    assert not list(tmp_path.iterdir())
