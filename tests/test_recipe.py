import pytest

from koa_hf.errors import KoaError
from train.loop.recipe import available_recipes, load_recipe


@pytest.mark.parametrize("name", available_recipes())
def test_every_recipe_that_comes_with_the_project_is_valid(name):
    assert load_recipe(name).name == name


def test_the_paper_recipe_is_the_papers():
    paper = load_recipe("paper")
    assert (paper.image_size, paper.weights, paper.augmentation.active) == (299, "imagenet", False)
    baseline, fine_tuned = paper.stages
    assert (baseline.train, baseline.loss, baseline.epochs) == ("head", "cross_entropy", 5)
    assert (fine_tuned.train, fine_tuned.loss, fine_tuned.epochs) == ("last_20", "focal", 8)
    assert (fine_tuned.focal_alpha, fine_tuned.focal_gamma) == (0.25, 2.0)


def test_any_key_can_be_overridden():
    changed = load_recipe("paper", ["stages.1.lr=3e-5", "seed=7", "augmentation.flip=true"])
    assert (changed.stages[1].lr, changed.seed, changed.augmentation.flip) == (3e-5, 7, True)


def test_a_written_recipe_reads_back_equal(tmp_path):
    original = load_recipe("paper", ["stages.0.epochs=2"])
    (tmp_path / "copy.yaml").write_text(original.to_yaml())
    assert load_recipe(tmp_path / "copy.yaml") == original


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("stages.1.lr=-1", ["stages.1.lr", "-1", "greater than 0"]),
        ("stages.0.train=heart", ["stages.0.train", "'heart'", "'last_20'"]),
        ("stages.0.epoch=3", ["'stages.0.epoch'", "epochs"]),
        ("image_size=20", ["image_size", "20", "71"]),
        ("stages.1.label_smoothing=0.1", ["label_smoothing", "cross_entropy", "focal"]),
        ("best_metric=f1", ["best_metric", "'f1'", "'quadratic_weighted_kappa'"]),
        ("augmentation.mirror=true", ["'augmentation.mirror'", "flip"]),
        ("augmentation.blur.sigma=[2, 1]", ["augmentation.blur", "sigma is [2.0, 1.0]", "lowest value first"]),
        (
            "augmentation.compression.quality=[0, 95]",
            ["augmentation.compression.quality", "greater than or equal to 1"],
        ),
        ("stages.0.stop_after=99", ["stop_after is 99", "epochs"]),
        ("stages.9.lr=1", ["stages.9.lr"]),
        ("lr", ["key=value"]),
    ],
)
def test_a_bad_key_or_value_is_named_with_what_is_allowed(override, says):
    with pytest.raises(KoaError) as caught:
        load_recipe("paper", [override])
    for part in says:
        assert part in str(caught.value)


def test_an_unknown_recipe_names_those_there_are(tmp_path):
    with pytest.raises(KoaError, match=r"no recipe 'papr'.*paper"):
        load_recipe("papr")
    (tmp_path / "broken.yaml").write_text("stages: [")
    with pytest.raises(KoaError, match="not valid YAML"):
        load_recipe(tmp_path / "broken.yaml")
