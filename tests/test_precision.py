"""`auto` takes the number format that the machine is really faster in."""

import json
from argparse import Namespace

import pytest
import torch

from koa_hf.errors import KoaError
from koa_hf.network import precision
from koa_hf.network.precision import choose_precision
from train.loop.settings import requested_precision


@pytest.mark.parametrize(("speedup", "chosen"), [(0.5, "fp32"), (1.1, "fp32"), (2.2, "bf16")])
def test_bfloat16_is_chosen_where_it_is_clearly_faster(monkeypatch, speedup, chosen):
    monkeypatch.setattr(precision, "_has_bf16", lambda: True)
    monkeypatch.setattr(precision, "bf16_speedup", lambda: speedup)
    assert choose_precision("auto", torch.device("cpu")) == chosen


def test_it_is_not_even_measured_where_the_cpu_lacks_it(monkeypatch):
    monkeypatch.setattr(precision, "_has_bf16", lambda: False)
    monkeypatch.setattr(precision, "bf16_speedup", lambda: pytest.fail("measured"))
    assert choose_precision("auto", "cpu") == "fp32"


@pytest.mark.skipif(not precision._has_bf16(), reason="this CPU has no bfloat16, so it is never measured")
def test_measuring_takes_a_moment_and_is_done_once():
    assert precision.bf16_speedup() > 0
    assert precision.bf16_speedup() == precision.bf16_speedup()


def test_what_is_asked_for_by_name_is_taken(monkeypatch):
    monkeypatch.setattr(precision, "bf16_speedup", lambda: pytest.fail("measured"))
    assert [choose_precision(name, "cpu") for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    with pytest.raises(KoaError, match="fp16 needs a GPU"):
        choose_precision("fp16", "cpu")


@pytest.mark.parametrize(("recorded", "wanted"), [("no", "fp32"), ("bf16", "bf16")])
def test_a_resumed_run_keeps_the_precision_that_it_began_with(tmp_path, recorded, wanted):
    (tmp_path / "run.json").write_text(json.dumps({"machine": {"precision": recorded}}))

    def options(**changed) -> Namespace:
        return Namespace(**{"output_dir": str(tmp_path), "resume": True, "precision": "auto", **changed})

    assert requested_precision(options()) == wanted
    assert requested_precision(options(precision="fp16")) == "fp16"
    assert requested_precision(options(resume=False)) == "auto"
    assert requested_precision(options(output_dir=str(tmp_path / "other"))) == "auto"
