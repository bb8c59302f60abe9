"""The Hub: what is sent to it, what is shown before, and the sentences when it refuses. The client is the real one."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from invmm_eval.errors import InvMMError
from invmm_eval.reports import hub as module
from invmm_eval.reports.hub import Content, Repository
from tests.helpers import hub as loopback

CARD = "models/org/model"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[loopback.Hub]:
    """With one model that has a card and a picture; the client does not wait between its trials."""
    model = loopback.Repository({"README.md": b"# Model\n\nOld.\n", "picture.png": b"old"})
    with loopback.Hub({CARD: model}) as serving:
        serving.redirect(monkeypatch, tmp_path / "cache")
        monkeypatch.setattr(time, "sleep", lambda _: None)
        yield serving


def test_the_diff_shows_texts_line_by_line_and_names_other_files(hub: loopback.Hub, tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_bytes(b"x" * 1234)
    files: dict[str, Content] = {
        "README.md": b"# Model\n\nNew, without an end",
        "more.yaml": b"- 1\n",
        "picture.png": b"new",
        "table.parquet": tmp_path / "table.parquet",
    }
    assert Repository.find("org/model", "model").diff(files).splitlines() == [
        "--- a/README.md",
        "+++ b/README.md",
        "@@ -1,3 +1,3 @@",
        " # Model",
        " ",
        "-Old.",
        "+New, without an end",
        "--- /dev/null",
        "+++ b/more.yaml",
        "@@ -0,0 +1 @@",
        "+- 1",
        "replaces picture.png (3 bytes)",
        "adds table.parquet (1,234 bytes)",
    ]
    assert not any(request.startswith("POST") for request in hub.requests)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "400, 'refused with 400'): follow its message"),
        (401, "401, 'refused with 401'): log in with `hf auth login`, or set HF_TOKEN"),
        (403, "403, 'refused with 403'): use a token with write access to it"),
        (404, "404, 'refused with 404'): check the name, and that your token has access to it"),
        (409, "409, 'refused with 409'): it was changed in the meantime; run the command again"),
        (412, "412, 'refused with 412'): it was changed in the meantime; run the command again"),
        (429, "429, 'refused with 429'): wait some minutes"),
        (500, "500, 'refused with 500'): run the command again later"),
        (503, "503, 'refused with 503'): run the command again later"),
    ],
)
@pytest.mark.parametrize("place", ["/api/models/", "/preupload/", "/commit/"])
def test_a_refusal_is_one_sentence(hub: loopback.Hub, place: str, status: int, text: str) -> None:
    hub.refusals[place] = status
    with pytest.raises(InvMMError) as error:
        Repository.find("org/model", "model").send({"README.md": b"New.\n"}, "Change", pull_request=True)
    assert text in str(error.value)
    assert str(error.value).startswith("The Hub refused the model org/model (")
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)
    assert hub.repositories[CARD].pull_requests == []


def test_a_change_in_the_meantime_is_a_conflict(hub: loopback.Hub) -> None:
    found = Repository.find("org/model", "model")
    hub.repositories[CARD].files["README.md"] = b"Somebody else's.\n"
    with pytest.raises(InvMMError, match=r"\(412, .*it was changed in the meantime; run the command again\.$"):
        found.send({"README.md": b"Ours.\n"}, "Change")
    assert hub.repositories[CARD].files["README.md"] == b"Somebody else's.\n"


@pytest.mark.parametrize("place", ["/api/models/", "/resolve/", "/preupload/", "/commit/"])
@pytest.mark.parametrize("fault", ["hang", "close"])
def test_a_hub_that_does_not_answer_is_one_sentence(
    hub: loopback.Hub, place: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    hub.refusals[place] = fault  # type: ignore[assignment]

    def read_and_send() -> None:
        found = Repository.find("org/model", "model")
        found.read("README.md")
        found.send({"README.md": b"New.\n"}, "Change")

    with pytest.raises(InvMMError, match=r"^The Hub could not be reached \(.+\); check the network, and .*again\.$"):
        read_and_send()


def test_invalid_metadata_are_one_sentence(hub: loopback.Hub) -> None:
    found = Repository.find("org/model", "model")
    hub.invalid = ["licence is no key"]
    with pytest.raises(InvMMError, match=r"Invalid metadata in README\.md\. - licence is no key; fix"):
        found.send({"README.md": b"---\nlicence: mit\n---\n"}, "Change")


def test_an_invalid_name_is_one_sentence(hub: loopback.Hub) -> None:
    with pytest.raises(InvMMError, match=r"'a/b/c' is not a name on the Hub; names have the form org/name\."):
        Repository.find("a/b/c", "model")
    assert hub.requests == []
