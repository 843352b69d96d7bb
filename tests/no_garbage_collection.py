"""Imported first by the server of tests/processes.py: a fifth of its imports' time would go to garbage collection."""

import gc

gc.disable()
