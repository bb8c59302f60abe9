"""Every example of the documents is run as it stands, in the order of its document, or says why it is not.

A comment ``<!-- not run: REASON -->`` in the line before a block says why. Recipes and sets of pictures are made short.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import invmm_ui
import pytest
import torch

from invmm_eval.plugins.host import host
from invmm_eval.reference import MODEL, pictures
from invmm_eval.testing import tiny
from tests.helpers import audits
from tests.helpers.command import Invoke
from tests.helpers.documents import DOCUMENTS, LANGUAGES, NO_EXAMPLES, ROOT, Example, blocks, name, prose
from tests.helpers.hub import Hub, Repository
from tests.helpers.lora import train_lora
from tests.helpers.short import shorten

SETS_UP = ("cd", "pip", "python3")
"""Commands that prepare a machine: what they name is looked for, and they are not run."""


def an_audit(folder: Path) -> None:
    audits.guided(folder / "audit")


def a_model_and_its_images(folder: Path) -> None:
    (folder / "my-model").symlink_to(MODEL)
    (folder / "train").mkdir()
    for picture in (pictures()[0], pictures()[-1]):
        picture.image.save(folder / "train" / f"{picture.name}.png")


def two_models_and_images(folder: Path) -> None:
    for model in ("base", "tuned"):
        (folder / model).symlink_to(MODEL)
    (folder / "images").mkdir()
    pictures()[0].image.save(folder / "images" / "one.png")


def a_base_model_and_a_lora(folder: Path) -> None:
    tiny.tiny_stable_diffusion().save_pretrained(folder / "my-base")
    picture = pictures()[-1]
    (folder / "training-images").mkdir()
    picture.image.save(folder / "training-images" / "one.png")
    (folder / "training-images" / "one.txt").write_text(picture.name)
    lora = train_lora(folder / "my-base", torch.zeros(1, 3, 16, 16), [picture.name], folder, steps=1)
    lora.rename(folder / "my-lora.safetensors")


GIVEN: Mapping[str, Callable[[Path], None]] = {
    "README.md": a_model_and_its_images,
    "docs/check.md": two_models_and_images,
    "docs/compare.md": two_models_and_images,
    "docs/model-cards.md": an_audit,
    "docs/page.md": an_audit,
    "docs/report.md": an_audit,
    "docs/runs.md": an_audit,
    "docs/training-set.md": a_model_and_its_images,
    "docs/tutorial.md": a_base_model_and_a_lora,
    "docs/watching.md": a_model_and_its_images,
}
"""What the reader of a document has already."""
HELD_OUT = {"docs/recipes.md": 4}
"""The held-out pictures that a document needs, if it is not one."""


@dataclass
class Ran:
    """What the examples of a document left.

    Attributes:
        folder: Where they ran.
        hub: What they sent.
        printed: What each printed.
        names: What the Python defined.
    """

    folder: Path
    hub: Hub
    printed: list[str] = field(default_factory=list)
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "shown"})


def readme(ran: Ran) -> None:
    audit, price, again, report, results, finding = ran.printed
    assert "Results are in audit." in audit
    assert "rows" in price
    assert "Results are in my-audit." in again
    assert report == "Wrote my-audit/report.html.\n"
    assert results.startswith("1 image: 1 memorized, ")
    assert re.search(r"replicated|memorized", finding)
    assert (ran.folder / "first.png").exists()


def tutorial(ran: Ran) -> None:
    assert (ran.folder / "audit-held-out" / "report.html").exists()
    assert (ran.folder / "lora.html").exists()
    [proposed] = ran.hub.repositories["models/org/model"].pull_requests
    assert b"Memorization audit (InvMM)" in proposed["README.md"]


def model_cards(ran: Ran) -> None:
    written, read, shown, published, loaded, proposal, proposed = ran.printed
    assert written.startswith("Wrote the audit into README.md.\nTo propose it")
    assert "replicated from chosen noise 0.571" in read
    assert "'verdict': 'memorized'" in loaded
    assert all(text.endswith("Nothing was sent. Add --yes to send it.\n") for text in (shown, proposal))
    assert f"{ran.hub.url}/datasets/org/audit/commit/" in published
    assert proposed.splitlines()[-1] == f"{ran.hub.url}/org/model/discussions/1"
    [pull_request] = ran.hub.repositories["models/org/model"].pull_requests
    assert set(pull_request) == {"README.md", ".eval_results/invmm.yaml", "memorization-audit/distribution.png"}


def plugins(ran: Ran) -> None:
    ran.names["test_conformance"]()


CHECKS: Mapping[str, Callable[[Ran], None]] = {
    "README.md": readme,
    "docs/tutorial.md": tutorial,
    "docs/model-cards.md": model_cards,
    "docs/plugins.md": plugins,
}
"""What must be true when the examples of a document were run, beside that none failed."""


def to_run(document: Path) -> list[Example]:
    return [block for block in blocks(document) if block.language in LANGUAGES and not block.reason]


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if to_run(path)], ids=name)
def test_the_examples_of_a_document_run_as_they_stand(
    document: Path,
    tmp_path: Path,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    host().register(invmm_ui)
    monkeypatch.chdir(tmp_path)
    shorten(monkeypatch, HELD_OUT.get(name(document), 1))
    if prepare := GIVEN.get(name(document)):
        prepare(tmp_path)
    with Hub({"models/org/model": Repository({"README.md": b"# Model\n"})}) as hub:
        hub.redirect(monkeypatch, tmp_path / "cache")
        ran = Ran(tmp_path, hub)
        for example in to_run(document):
            if example.language == "python":
                if "import mlflow" in example.text:
                    forget_the_store(monkeypatch)
                exec(compile(example.text, example.place, "exec"), ran.names)
                ran.printed.append(capsys.readouterr().out)
            else:
                ran.printed += [run(words, example, invoke) for words in example.commands if words[0] not in SETS_UP]
    if check := CHECKS.get(name(document)):
        check(ran)


def run(words: list[str], example: Example, invoke: Invoke) -> str:
    """Run a command of the package; returns what it printed."""
    assert words[0] == "invmm-eval", f"{example.place}: say in <!-- not run: ... --> why {words[0]} is not run."
    return invoke.out(*words[1:])


def forget_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mlflow have, after the test, the store that it has now."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_blocks_have_a_known_language(document: Path) -> None:
    for block in blocks(document):
        assert block.language in (*LANGUAGES, *NO_EXAMPLES), block.place
        assert block.language in LANGUAGES or not block.reason, f"{block.place} is no example."


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_what_is_installed_exists(document: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for example in to_run(document):
        for words in [] if example.language == "python" else example.commands:
            for word in words if words[0] == "pip" else []:
                found = re.fullmatch(r"(?:\.|invmm-eval)(?:/(.*?))?(?:\[(.*)\])?", word)
                if found and found[1]:
                    assert (ROOT / found[1] / "pyproject.toml").exists(), example.place
                if found and found[2]:
                    assert set(found[2].split(",")) <= set(extras), example.place


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_are_in_fenced_blocks(document: Path) -> None:
    assert not re.findall(r"^(?: {4}|\t)(?:\$ )?(?:git|invmm-eval|make|pip|python) .*", prose(document), re.M)
