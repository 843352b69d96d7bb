import time
import weakref

import gradio as gr
from gradio.state_holder import SessionState, StateHolder

from koa_hf import files
from koa_hf.demo.batch import Row
from koa_hf.demo.session import Visit, VisitMemory
from koa_hf.grading.result import NotGraded


def visit(size: int) -> Visit:
    return Visit(rows=(Row(NotGraded(file="knee.png", error=""), bytes(size)),))


def test_the_visit_unused_for_longest_is_forgotten_when_memory_is_short():
    memory = VisitMemory(max_bytes=250)
    first, second = memory.use(visit(100)), memory.use(visit(100))
    memory.use(first)
    third = memory.use(visit(100))
    assert [one.size for one in (first, second, third)] == [100, 0, 100]
    large = memory.use(visit(900))
    assert [one.size for one in (first, third, large)] == [0, 0, 900]


def test_a_visit_that_replaces_another_counts_alone():
    memory = VisitMemory(max_bytes=250)
    other, before = memory.use(visit(100)), memory.use(visit(100))
    after = memory.use(Visit(rows=before.rows), instead_of=before)
    assert [one.size for one in (other, before, after)] == [100, 100, 100]


def test_a_visit_that_its_session_dropped_is_not_kept_in_memory():
    memory = VisitMemory(max_bytes=250)
    dropped = weakref.ref(memory.use(visit(200)))
    assert dropped() is None
    kept = memory.use(visit(100))
    assert memory.use(visit(100)).size == kept.size == 100


def test_gradio_forgets_a_visit_in_time_and_gives_every_session_its_own():
    with gr.Blocks() as demo:
        state = gr.State(Visit(), time_to_live=0.01)
    demo.state_session_capacity = 10
    holder = StateHolder()
    holder.set_blocks(demo)
    session: SessionState = holder["one"]
    session[state._id] = visit(100)
    kept = weakref.ref(session[state._id])
    assert holder["other"][state._id].size == 0
    time.sleep(0.02)
    holder.delete_all_expired_state()
    assert kept() is None
    assert session[state._id].rows == ()


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
