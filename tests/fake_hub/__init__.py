"""A small Hugging Face Hub on loopback, for tests: see README.md beside this file.

Nothing in here imports a Hugging Face library: the server knows them only by what they send.
"""
