"""Speed, memory and load of training, grading and the demo.

one_xray, student, fine_tune, reading, cached_trunk, growth, demo_start, demo_load, cohort, install  the benchmarks
ceiling, timing  the machine's limits; medians of timed calls
other_engines  torch.compile and ONNX Runtime as engines of a Grader
demo_server, load_clients, fill_trunk_cache  processes that the benchmarks start
"""
