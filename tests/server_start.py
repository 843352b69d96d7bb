"""Imported first by the server of tests/processes.py, whose imports take a fifth longer with garbage collection."""

import gc

gc.disable()
