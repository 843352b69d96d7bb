"""Contents of a published data set, model or Space, and the checks that a folder must pass. No network is used."""

import json
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml
from huggingface_hub import DatasetCard, ModelCard, SpaceCard, SpaceCardData
from huggingface_hub.repocard import RepoCard

from koa_hf import checksums
from koa_hf.errors import KoaError
from koa_hf.grades import GRADES, RESEARCH_USE_NOTICE
from koa_hf.imaging import phantom
from koa_hf.network.model_folder import MODEL_NAME_FILE, RECIPE_BEFORE_FILE

CARD = "README.md"

MODEL_FILES = (
    *("config.json", "model.safetensors", "grading.json", checksums.CHECKSUMS_FILE, CARD),
    *("recipe.yaml", RECIPE_BEFORE_FILE, "run.json", "metrics.json", "metrics.jsonl"),
    *("curves.png", "confusion_matrix.png"),
)
"""Files of a run folder that are published: the model, its card, and the record of how it was made and measured.

Not published: predictions.csv (one row per patient), tensorboard/ (metrics.jsonl has the same figures, and its file
names hold the machine's name), and anything else in the folder."""

SPACE_REQUIREMENTS = (
    *("torch", "torchvision", "timm", "openvino", "gradio", "mcp", "huggingface-hub", "safetensors"),
    *("numpy", "scipy", "pillow", "matplotlib", "pydantic", "pydicom", "imagecodecs", "highdicom"),
)
"""Packages that the demo imports. Training, evaluation and data sets need more, which a Space need not install."""


@dataclass(frozen=True)
class Hardware:
    """A kind of machine that a Space runs on, and what its card and requirements say for it.

    Attributes:
        flavour: the Hub's name of it.
        python: version of Python.
        torch: lines of requirements.txt that take the place of the project's torch and torchvision.
        left_out: packages of `SPACE_REQUIREMENTS` that are of no use there.
        about: a sentence for the card.
    """

    flavour: str
    python: str
    torch: tuple[str, ...]
    left_out: tuple[str, ...]
    about: str


HARDWARE = {
    "cpu-basic": Hardware(
        "cpu-basic",
        "3.11",
        (),
        (),
        "CPU basic hardware is enough: an image takes about a second.",
    ),
    # huggingface.co/docs/hub/spaces-zerogpu, of August 2026: the versions of Python and torch; no torch.compile.
    "zero": Hardware(
        "zero-a10g",
        "3.12.12",
        ("torch>=2.8,<2.12", "torchvision>=0.23,<0.27", "spaces>=0.51,<1"),
        ("openvino",),
        "ZeroGPU lends a GPU for each grading; a free account can host such a Space.",
    ),
}
"""By the name that `koa push space --hardware` takes."""

THUMBNAIL = "thumbnail.png"

_CARDS = {"dataset": DatasetCard, "model": ModelCard, "space": SpaceCard}
_CARD_KEYS = {
    "dataset": ("license", "pretty_name", "task_categories", "configs", "dataset_info"),
    "model": ("license", "library_name", "pipeline_tag", "tags"),
    "space": ("title", "sdk", "sdk_version", "python_version", "app_file", "license", "models", "preload_from_hub"),
}


@dataclass(frozen=True)
class Contents:
    """Files of a push.

    Attributes:
        kind: repository type: dataset, model or space.
        files: path in the repository -> a local file, or its content.
        owned: shell patterns; files on the Hub that match but are not among `files` are deleted.
        serves: (Hub id, revision) of the model that a Space serves, which must be on the Hub already.
        hardware: the Hub's name of the machine that a new Space is created with.
    """

    kind: str
    files: dict[str, Path | bytes]
    owned: tuple[str, ...]
    serves: tuple[str, str | None] | None = None
    hardware: str | None = None

    def sizes(self) -> dict[str, int]:
        """Path of every file -> its size in bytes."""
        return {
            path: len(source) if isinstance(source, bytes) else source.stat().st_size
            for path, source in self.files.items()
        }

    @property
    def card(self) -> RepoCard:
        """Parsed README.md."""
        return _CARDS[self.kind](self.files[CARD].decode())


def of_dataset(folder: Path, repo_id: str) -> Contents:
    """Parquet shards and card of a folder that `koa dataset build` wrote.

    Raises:
        KoaError: another folder, a shard missing or damaged, or a card that does not describe it.
    """
    # Imported here: `datasets` takes over a second, and models and Spaces do without it.
    from koa_hf.data import dataset_card
    from koa_hf.data.shards import check_built, check_shards

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


def of_cohort(folder: Path, repo_id: str) -> Contents:
    """Parquet files and card of a cohort: its films, listed by `koa cohort build --embed`, or their grades.

    Raises:
        KoaError: another folder, not complete, or one that holds paths of this machine instead of films.
    """
    # Imported here, as above.
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets.info import DatasetInfosDict

    from koa_hf.data import dataset_card

    shards = sorted(folder.glob("data/*.parquet"))
    if not shards:
        raise KoaError(f"{folder} holds no cohort (no data/*.parquet); give a folder of `koa cohort build` or `grade`.")
    card = _card_text(folder)
    try:
        splits = DatasetInfosDict.from_directory(folder)["default"].splits
        expected = sum(split.num_examples for split in splits.values())
        if sum(pq.read_metadata(shard).num_rows for shard in shards) != expected:
            raise KoaError(f"{folder} is not complete: its card states {expected} rows; build or grade it again.")
        if "image" in pq.read_schema(shards[0]).names:
            first = next(pq.ParquetFile(shards[0]).iter_batches(1, columns=["image"])).to_pylist()[0]
            if first["image"]["bytes"] is None:
                raise KoaError(f"{folder} holds paths of this machine, not films; build it with --embed to publish it.")
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise KoaError(f"{folder} is damaged ({str(error).splitlines()[0]}); build or grade it again.") from error
    files: dict[str, Path | bytes] = {shard.relative_to(folder).as_posix(): shard for shard in shards}
    files[CARD] = card.replace(dataset_card.PLACEHOLDER, repo_id).encode()
    if (folder / "run.json").exists():
        files["run.json"] = without_local_paths(folder / "run.json")
    contents = Contents("dataset", files, ("data/*.parquet",))
    _check_card(contents, folder)
    return contents


def of_model(folder: Path, repo_id: str, dataset_id: str | None = None) -> Contents:
    """`MODEL_FILES` of a model folder, and drawn knees as examples for the model page's widget.

    Args:
        folder: as written by training.
        repo_id: replaces the placeholder in the card.
        dataset_id: Hub id of the training data, for the card; by default as in the card already.

    Raises:
        KoaError: another folder, a file that differs from its recorded checksum, or a missing or incomplete card.
    """
    # Imported here: torch and `datasets` take seconds, and Spaces do without both.
    from koa_hf.hub import model_card
    from koa_hf.network import xception

    xception.load_model(folder)  # raises KoaError for a folder of another kind, or a damaged one
    checksums.check(folder)
    files: dict[str, Path | bytes] = {name: folder / name for name in MODEL_FILES if (folder / name).is_file()}
    for name in ("run.json", "metrics.json"):
        if name in files:
            files[name] = without_local_paths(folder / name)
    files |= {
        f"examples/drawn-kl-{grade.value}.png": phantom.as_png(phantom.draw_knee(grade.value, seed=grade.value))
        for grade in GRADES
    }

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


def of_space(
    repo_id: str,
    model: str,
    model_revision: str | None = None,
    hardware: str = "cpu-basic",
    dataset_id: str | None = None,
) -> Contents:
    """The demo as a Space: app.py, koa_hf/ and the file KOA_MODEL, which names the model to serve.

    The files run by themselves, on the Hub or elsewhere: `pip install -r requirements.txt && python app.py`.

    Args:
        repo_id: of the Space, for the card.
        model: Hub id of the model to serve.
        model_revision: branch, tag or commit of it; by default the newest when the Space starts.
        hardware: one of `HARDWARE`.
        dataset_id: Hub id of the model's training data, for the card.

    Raises:
        KoaError: the package is not in a checkout of the project, which holds app.py.
    """
    package = Path(__file__).resolve().parents[1]
    project = package.parent
    needed = {name: project / name for name in ("app.py", "requirements.txt", "LICENSE", "docs/demo.png")}
    if missing := [name for name, path in needed.items() if not path.is_file()]:
        raise KoaError(f"{project} has no {missing[0]}; run `koa push space` in a checkout of the project.")
    files: dict[str, Path | bytes] = {"app.py": needed["app.py"], "LICENSE": needed["LICENSE"]}
    files |= {
        path.relative_to(project).as_posix(): path
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    machine = HARDWARE[hardware]
    files["requirements.txt"] = _space_requirements(needed["requirements.txt"].read_text(), machine).encode()
    files[MODEL_NAME_FILE] = (f"{model}@{model_revision}" if model_revision else model).encode() + b"\n"
    files[THUMBNAIL] = needed["docs/demo.png"]
    files[CARD] = str(_space_card(repo_id, model, model_revision, machine, dataset_id)).encode()
    served = (model, model_revision)
    contents = Contents("space", files, ("koa_hf/*",), serves=served, hardware=machine.flavour)
    _check_card(contents, project)
    return contents


def _space_card(
    repo_id: str, model: str, model_revision: str | None, machine: Hardware, dataset_id: str | None
) -> SpaceCard:
    data = SpaceCardData(
        title="Knee X-ray grading",
        emoji="🦵",
        colorFrom="green",
        colorTo="blue",
        sdk="gradio",
        sdk_version=version("gradio"),
        python_version=machine.python,
        app_file="app.py",
        pinned=False,
        license="apache-2.0",
        suggested_hardware=machine.flavour,
        short_description="Knee osteoarthritis grades from X-rays (research)",
        thumbnail=f"https://huggingface.co/spaces/{repo_id}/resolve/main/{THUMBNAIL}",
        models=[model],
        datasets=[dataset_id] if dataset_id else None,
        preload_from_hub=[model],
        tags=["medical", "x-ray", "knee", "osteoarthritis", "kellgren-lawrence", "mcp-server"],
    )
    served = f"[{model}](https://huggingface.co/{model})" + (f" at `{model_revision}`" if model_revision else "")
    return SpaceCard(
        f"---\n{data.to_yaml()}\n---\n\n"
        f"# Knee X-ray grading\n\n"
        f"Grades knee radiographs on the Kellgren-Lawrence scale with {served}.\n\n"
        f"**{RESEARCH_USE_NOTICE}**\n\n"
        f"{machine.about} Uploads are not kept. The file `KOA_MODEL`\n"
        "names the model; a variable `KOA_MODEL` in the Space's settings overrides it. A private model needs a secret\n"
        "`HF_TOKEN` with read access.\n\n"
        "To run it on your own machine:\n\n"
        "```sh\n"
        f"hf download {repo_id} --repo-type space --local-dir koa-demo && cd koa-demo\n"
        "pip install -r requirements.txt && python app.py\n"
        "```\n"
    )


def _space_requirements(requirements: str, machine: Hardware) -> str:
    replaced = {re.match(r"[a-z]+", line)[0] for line in machine.torch}
    wanted = set(SPACE_REQUIREMENTS) - set(machine.left_out) - replaced
    lines = [
        line
        for line in requirements.splitlines()
        if (match := re.match(r"[A-Za-z0-9_.-]+", line)) and match[0].lower() in wanted
    ]
    cpu_only = (
        "# CPU builds of torch and torchvision: a tenth of the size, and this hardware has no GPU.",
        "--extra-index-url https://download.pytorch.org/whl/cpu",
    )
    return "\n".join((*(machine.torch or cpu_only), *lines)) + "\n"


def _card_text(folder: Path) -> str:
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KoaError(
            f"{folder} has no readable card ({CARD}); write a model's card with `koa card {folder}`, or build the data "
            "set again."
        ) from error
    if not text.lstrip().startswith("---"):
        raise KoaError(f"{folder / CARD} fails validation: it does not begin with YAML between two lines of `---`.")
    return text


def _check_card(contents: Contents, folder: Path) -> None:
    """Raise KoaError if the card's YAML can't be parsed or lacks a key that the Hub shows."""
    try:
        data = contents.card.data.to_dict()
    except (ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise _bad_card(folder, error) from error
    if missing := [key for key in _CARD_KEYS[contents.kind] if not data.get(key)]:
        raise KoaError(f"{folder / CARD} fails validation: its YAML has no {', '.join(missing)}.")


def _bad_card(folder: Path, error: Exception) -> KoaError:
    return KoaError(f"{folder / CARD} fails validation: {' '.join(str(error).split())}.")


def without_local_paths(file: Path) -> bytes:
    """Content of a JSON file with absolute paths, and those that begin with `..`, cut to their last part.

    Keeps the folder names of the machine that trained the model private.
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
        raise KoaError(f"{file} is damaged ({error}); download or train the model again.") from error
