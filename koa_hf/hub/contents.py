"""What a data set, a model and a Space consist of on the Hub; and whether a folder is fit to go there.

Everything here is local: nothing is sent, and nothing is asked of the Hub.
"""

import io
import json
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml
from huggingface_hub import DatasetCard, ModelCard, SpaceCard, SpaceCardData
from huggingface_hub.repocard import RepoCard
from PIL import Image

from koa_hf import checksums
from koa_hf.errors import KoaError
from koa_hf.grades import GRADES, RESEARCH_USE_NOTICE
from koa_hf.imaging import phantom
from koa_hf.network.model_folder import RECIPE_BEFORE_FILE

CARD = "README.md"

MODEL_FILES = (
    *("config.json", "model.safetensors", "int8.safetensors", "grading.json", checksums.CHECKSUMS_FILE, CARD),
    *("recipe.yaml", RECIPE_BEFORE_FILE, "run.json", "metrics.json", "metrics.jsonl"),
    *("curves.png", "confusion_matrix.png"),
)
"""What of a run folder belongs on the Hub: the model, its card, and the record that lets somebody repeat or doubt it.

Left at home: predictions.csv (a row for every patient), tensorboard/ (metrics.jsonl says the same, and the names of its
files hold the machine's), and whatever else somebody put into the folder."""

SPACE_REQUIREMENTS = (
    *("torch", "torchvision", "timm", "openvino", "gradio", "mcp", "huggingface-hub", "safetensors", "rich"),
    *("numpy", "scipy", "pillow", "matplotlib", "pydantic", "pydicom", "imagecodecs", "highdicom"),
)
"""What the demo imports. Training, evaluation and data sets need more, and a Space takes minutes to install them."""

_CARDS = {"dataset": DatasetCard, "model": ModelCard, "space": SpaceCard}
_CARD_KEYS = {
    "dataset": ("license", "pretty_name", "task_categories", "configs", "dataset_info"),
    "model": ("license", "library_name", "pipeline_tag", "tags"),
    "space": ("title", "sdk", "sdk_version", "app_file", "license", "models"),
}


@dataclass(frozen=True)
class Contents:
    """What a push puts into a repository."""

    kind: str  # dataset, model or space
    files: dict[str, Path | bytes]  # path in the repository -> a file here, or its content
    owned: tuple[str, ...]  # shell patterns: what matches on the Hub but isn't among `files` is left over, and goes

    def sizes(self) -> dict[str, int]:
        """Bytes of every file."""
        return {
            path: len(source) if isinstance(source, bytes) else source.stat().st_size
            for path, source in self.files.items()
        }

    @property
    def card(self) -> RepoCard:
        """The README.md."""
        return _CARDS[self.kind](self.files[CARD].decode())


def of_dataset(folder: Path, repo_id: str) -> Contents:
    """A folder that `koa_hf.data.build` wrote: its Parquet shards and its card.

    Raises:
        KoaError: it isn't one, a shard is missing or damaged, or the card doesn't describe it.
    """
    # Imported here because models and Spaces do without `datasets`, and it takes seconds.
    from koa_hf.data import dataset_card
    from koa_hf.data.build import check_built
    from koa_hf.data.shards import check_shards

    check_built(folder)
    _, problems = check_shards(folder)
    if problems:
        raise KoaError(problems[0])
    files: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path
        for pattern in ("data/*.parquet", "auto_test/*.parquet")
        for path in sorted(folder.glob(pattern))
    }
    files[CARD] = _card_text(folder).replace(dataset_card.PLACEHOLDER, repo_id).encode()
    contents = Contents("dataset", files, ("data/*.parquet", "auto_test/*.parquet"))
    _check_card(contents, folder)
    return contents


def of_model(folder: Path, repo_id: str, dataset_id: str | None = None) -> Contents:
    """A model folder, as training leaves it: see `MODEL_FILES`; with drawn knees to try it on.

    Args:
        dataset_id: the data set on the Hub that it was trained on, for the card; by default what run.json says.

    Raises:
        KoaError: it isn't one, a file differs from its recorded checksum, or the card is missing or incomplete.
    """
    from koa_hf.hub import model_card
    from koa_hf.network import xception  # here, because data sets and Spaces need neither torch nor evaluate

    xception.load_model(folder)  # says what is wrong with a folder that isn't a model's, or one that is damaged
    checksums.check(folder)
    files: dict[str, Path | bytes] = {name: folder / name for name in MODEL_FILES if (folder / name).is_file()}
    for name in ("run.json", "metrics.json"):
        if name in files:
            files[name] = without_local_paths(folder / name)
    files |= {f"examples/drawn-kl-{grade.value}.png": _drawn_knee(grade.value) for grade in GRADES}

    text = _card_text(folder).replace(model_card.PLACEHOLDER, repo_id)
    try:
        card = ModelCard(text)
    except (ValueError, yaml.YAMLError) as error:
        raise _bad_card(folder, error) from error
    card.data["widget"] = [
        {"src": f"examples/drawn-kl-{grade.value}.png", "example_title": f"Drawn knee, KL {grade.value}"}
        for grade in GRADES
    ]
    if dataset_id:
        card.data["datasets"] = [dataset_id]
    files[CARD] = str(card).encode()
    contents = Contents("model", files, (*MODEL_FILES, "examples/drawn-kl-*.png"))
    _check_card(contents, folder)
    return contents


def of_space(repo_id: str, model: str, model_revision: str | None = None) -> Contents:
    """The demo as a Space: app.py and koa_hf/ as they are here, and what says which model it serves.

    The file KOA_MODEL names the model (see `koa_hf.network.model_folder.default_model`), so the folder runs as it stands, on
    the Hub or anywhere else: `pip install -r requirements.txt && python app.py`.

    Args:
        model: Hub id of the model to serve.
        model_revision: branch, tag or commit of it; by default what is newest when the Space starts.

    Raises:
        KoaError: this isn't a checkout of the project, which holds the demo.
    """
    package = Path(__file__).resolve().parents[1]
    project = package.parent
    needed = {name: project / name for name in ("app.py", "requirements.txt", "LICENSE")}
    if missing := [name for name, path in needed.items() if not path.is_file()]:
        raise KoaError(f"{project} has no {missing[0]}; run this from a checkout of the project.")
    files: dict[str, Path | bytes] = {"app.py": needed["app.py"], "LICENSE": needed["LICENSE"]}
    files |= {
        path.relative_to(project).as_posix(): path
        for path in sorted(package.rglob("*"))
        if path.suffix in (".py", ".css", ".js", ".safetensors")
    }
    files["requirements.txt"] = _space_requirements(needed["requirements.txt"].read_text()).encode()
    files["KOA_MODEL"] = (f"{model}@{model_revision}" if model_revision else model).encode() + b"\n"
    files[CARD] = str(_space_card(repo_id, model, model_revision)).encode()
    contents = Contents("space", files, ("koa_hf/*",))
    _check_card(contents, project)
    return contents


def _space_card(repo_id: str, model: str, model_revision: str | None) -> SpaceCard:
    data = SpaceCardData(
        title="Knee X-ray grading",
        emoji="🦵",
        colorFrom="green",
        colorTo="blue",
        sdk="gradio",
        sdk_version=version("gradio"),
        python_version="3.11",
        app_file="app.py",
        pinned=False,
        license="apache-2.0",
        suggested_hardware="cpu-basic",
        short_description="Knee osteoarthritis grades from X-rays (research)",
        models=[model],
        tags=["medical", "x-ray", "knee", "osteoarthritis", "kellgren-lawrence"],
    )
    served = f"[{model}](https://huggingface.co/{model})" + (f" at `{model_revision}`" if model_revision else "")
    return SpaceCard(
        f"---\n{data.to_yaml()}\n---\n\n"
        f"# Knee X-ray grading\n\n"
        f"Grades an X-ray of one knee on the Kellgren-Lawrence scale with {served}.\n\n"
        f"**{RESEARCH_USE_NOTICE}**\n\n"
        "CPU basic is enough: an image takes about a second, and nothing uploaded is kept. The file `KOA_MODEL` names\n"
        "the model; a variable `KOA_MODEL` in the Space's settings comes before it. A private model needs a secret\n"
        f"`HF_TOKEN` that may read it.\n\n"
        "The same at home:\n\n"
        "```sh\n"
        f"hf download {repo_id} --repo-type space --local-dir koa-demo && cd koa-demo\n"
        "pip install -r requirements.txt && python app.py\n"
        "```\n"
    )


def _space_requirements(requirements: str) -> str:
    lines = [
        line
        for line in requirements.splitlines()
        if (match := re.match(r"[A-Za-z0-9_.-]+", line)) and match[0].lower() in SPACE_REQUIREMENTS
    ]
    return (
        "# The CPU builds of torch and torchvision: a tenth of the size, and a Space's basic hardware has no GPU.\n"
        "--extra-index-url https://download.pytorch.org/whl/cpu\n" + "\n".join(lines) + "\n"
    )


def _drawn_knee(grade: int) -> bytes:
    png = io.BytesIO()
    Image.fromarray(phantom.draw_knee(grade, seed=grade)).save(png, "PNG")
    return png.getvalue()


def _card_text(folder: Path) -> str:
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KoaError(
            f"{folder} has no readable card ({CARD}); write a model's with `python -m koa_hf.hub.model_card {folder}`, "
            "and build a data set again."
        ) from error
    if not text.lstrip().startswith("---"):
        raise KoaError(f"{folder / CARD} fails validation: it doesn't begin with YAML between two lines of `---`.")
    return text


def _check_card(contents: Contents, folder: Path) -> None:
    """KoaError where the card's YAML can't be read or lacks what the Hub and its visitors need."""
    try:
        data = contents.card.data.to_dict()
    except (ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise _bad_card(folder, error) from error
    if missing := [key for key in _CARD_KEYS[contents.kind] if not data.get(key)]:
        raise KoaError(f"{folder / CARD} fails validation: its YAML has no {', '.join(missing)}.")


def _bad_card(folder: Path, error: Exception) -> KoaError:
    return KoaError(f"{folder / CARD} fails validation: {' '.join(str(error).split())}.")


def without_local_paths(file: Path) -> bytes:
    """A JSON file in which paths out of the folder it was run in, absolute ones and those that begin with `..`, are cut
    to their last part: the trainer's folders are nobody's business.
    """

    def shorten(value: object) -> object:
        if isinstance(value, dict):
            return {key: shorten(one) for key, one in value.items()}
        if isinstance(value, list):
            return [shorten(one) for one in value]
        if isinstance(value, str):
            return re.sub(r"(^|[\s=])(?:~?/|\.\.[\\/]|[A-Za-z]:[\\/])\S*?([^\s/\\]+)[/\\]?(?=\s|$)", r"\1\2", value)
        return value

    try:
        return (json.dumps(shorten(json.loads(file.read_text())), indent=2) + "\n").encode()
    except (OSError, ValueError) as error:
        raise KoaError(f"{file} is damaged ({error}); get or train the model again.") from error
