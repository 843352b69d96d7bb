"""Measurements: each script writes its figures to results/ as JSON, and the tables of docs/ are made from those.

speed    time, memory and load, against the machine's own limits
studies  accuracy and robustness; faults of files, the Hub and processes; library versions
tables   JSON of results/ -> the marked blocks of docs/
all      every speed benchmark that this machine can run, then the tables (`make bench`)
reporting  result files, figures and terminal tables
screenshots  the pictures of the demo in docs/
"""
