"""Every fault of the Hub and of the connection ends in success after a retry, or in one sentence and nothing half done.

The slow test runs all rows of results/hub/faults.json again; the quick one runs one of each kind with a data set, none
that goes on or comes late, and waits milliseconds before it tries again. A model's damaged download: tests/test_hub.py.
"""

import pytest

from benchmarks.studies.hub_faults import ALWAYS, CASES, Case, run


def check(cases: list[Case], rows: list[dict]) -> None:
    for case, row in zip(cases, rows, strict=True):
        if case.succeeds:
            assert row["outcome"] == "success", row
        else:
            assert row["outcome"] != "success", row
            assert row["outcome"].endswith("."), row
            assert "\n" not in row["outcome"], row
            assert "Error:" not in row["outcome"], row
        if case.doing == "push":
            before = ("earlier",) if case.existing else ("absent", "empty")
            assert row["repository"] in (("later",) if case.succeeds else before), row
            assert row.get("the same command again", "success") == "success", row


def test_a_fault_that_passes_is_retried_and_one_that_stays_is_explained(tmp_path):
    passing = [
        case
        for case in CASES
        if case.doing != "load model" and case.fault.get("times") != ALWAYS and case.fault["effect"] != "slow"
    ]
    kinds = {(case.doing, case.fault["effect"], case.fault.get("status"), case.existing): case for case in passing}
    cases = list(kinds.values())
    check(cases, run(cases, tmp_path, hurried=True))


@pytest.mark.slow
def test_every_fault_in_the_published_table(tmp_path):
    check(CASES, run(CASES, tmp_path))
