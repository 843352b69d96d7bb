"""Imports that take two thirds of the time: for a program that somebody waits for."""

import atexit
import contextlib
import gc
import inspect
from collections.abc import Iterator


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Import without what imports don't need.

    Garbage is not collected: an import makes hundreds of thousands of objects that stay, and looking through them again
    and again is a third of what torch takes. And Gradio writes no type stubs: at every import it parses the source of
    each of its components to write a .pyi file beside it, which is two fifths of what it takes; it leaves out
    components whose file can't be told.
    """
    collecting, file_of = gc.isenabled(), inspect.getfile

    def file_but_of_gradio(thing: object) -> str:
        if getattr(thing, "__module__", "").startswith("gradio."):
            raise OSError("no type stubs")
        return file_of(thing)

    gc.disable()
    inspect.getfile = file_but_of_gradio
    try:
        yield
    finally:
        inspect.getfile = file_of
        gc.freeze()  # what was imported stays, and needn't be looked through later either,
        atexit.register(gc.unfreeze)  # except at the end, when modules want to be taken apart
        if collecting:
            gc.enable()
