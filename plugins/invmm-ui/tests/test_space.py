"""The Space: its files, what it publishes, and that evaluate and gradio can use it."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import httpx
import invmm_ui
import pytest
from huggingface_hub import RepoCard
from invmm_ui import app
from invmm_ui.space import check_name, write_space

from invmm_eval.audits.whole.found import Design
from invmm_eval.plugin import InvMMError, find
from invmm_eval.plugins.host import host
from tests.helpers import audits
from tests.helpers.command import Invoke, invoke, plain  # noqa: F401
from tests.helpers.hub import Hub

DOCS = Path(__file__).parents[3] / "docs"
PRELUDE = "import pytest; from tests.helpers.short import shorten; shorten(pytest.MonkeyPatch())\n"
FILES = {"README.md", "app.py", "invmm.py", "packages.zip", "requirements.txt"}


def test_its_files(tmp_path: Path) -> None:
    files = write_space(tmp_path / "invmm")
    assert set(files) == FILES
    assert all(path == tmp_path / "invmm" / name for name, path in files.items())
    required = files["requirements.txt"].read_text().splitlines()
    assert "torch>=2.6" in required
    assert not [line for line in required if "invmm" in line or "extra" in line], "no index has them"
    packed = files["packages.zip"].read_bytes()
    assert packed == write_space(tmp_path / "invmm")["packages.zip"].read_bytes(), "it is not sent again"
    metadata = RepoCard(files["README.md"].read_text(), ignore_metadata_errors=False).data.to_dict()  # type: ignore[no-untyped-call]
    assert (metadata["sdk"], metadata["sdk_version"]) == ("gradio", version("gradio"))
    assert metadata["python_version"] == f"{sys.version_info.major}.{sys.version_info.minor}", "a string, not a number"
    assert {"evaluate", "metric"} <= set(metadata["tags"])
    assert len(metadata["short_description"]) <= 60


def test_its_app_needs_no_other_copy_of_the_packages(tmp_path: Path) -> None:
    app = write_space(tmp_path / "invmm")["app.py"]
    start, _, _ = app.read_text().partition("from invmm_ui.app import serve")
    app.write_text(
        f"""{start}
from importlib.util import find_spec
import invmm_eval
from invmm_eval.reference import MODEL
found = [find_spec("invmm_ui.app").origin, invmm_eval.__file__, MODEL]
print(invmm_eval.__version__, [Path(path).is_relative_to(packages) and Path(path).exists() for path in found])
"""
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, app], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == f"{version('invmm-eval')} [True, True, True]\n", done.stderr


def test_evaluate_loads_it_in_a_fresh_process_as_the_documents_show(tmp_path: Path) -> None:
    write_space(tmp_path / "invmm")
    [code] = re.findall(r"^```python\n(.*?)^```", (DOCS / "page.md").read_text("utf-8"), re.M | re.S)
    done = subprocess.run(
        [sys.executable, "-c", f"{PRELUDE}{code}\nprint(type(invmm).__module__)"],
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    told, module = done.stdout.splitlines()[-2:]
    assert (told.split("] [")[0], module) == ("['not replicated'", "invmm_eval.metric.invmm"), done.stderr


def test_names_and_pictures_of_an_audit_are_published_on_request_only(tmp_path: Path) -> None:
    folder = audits.guided(tmp_path / "audit")
    Design(
        images=9,
        pictures=9,
        unreadable=0,
        suspects=(0, 1, 2),
        control=(3, 4, 5, 6),
        end="clean",
        clean=2,
        screen_rows=36,
    ).save(folder)
    found = find(folder)
    files = write_space(tmp_path / "invmm", found.public())
    assert set(files) == FILES | {"audit/config.json", "audit/results.jsonl", "audit/whole.json"}
    text = "".join(path.read_text() for path in files.values() if path.suffix != ".zip")
    assert not any(name in text for name in audits.NAMES)
    assert "balloon" not in text
    shown = find(tmp_path / "invmm" / "audit")
    assert [result.invmm for result in shown.results[:4]] == [result.invmm for result in found.results[:4]]
    assert shown.headline == found.headline
    assert shown.headline in files["README.md"].read_text()

    files = write_space(tmp_path / "invmm", found.public(names=True), pictures=True)
    assert sum(name.startswith("audit/samples/") for name in files) == 6, "of all images except the one that failed"
    shown = find(tmp_path / "invmm" / "audit")
    assert [result.name for result in shown.results] == [result.name for result in found.results]
    assert shown.picture(shown.results[0]).read_bytes() == found.picture(found.results[0]).read_bytes()

    assert set(write_space(tmp_path / "invmm")) == FILES, "the audit of an earlier Space is removed"


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    kept = audits.guided(tmp_path / "audit") / "config.json"
    with pytest.raises(InvMMError, match="holds no Space of InvMM"):
        write_space(tmp_path, find(tmp_path / "audit"))
    assert kept.exists()
    (tmp_path / "file").touch()
    with pytest.raises(InvMMError, match="cannot be written"):
        write_space(tmp_path / "file")


@pytest.mark.parametrize("with_audit", [True, False])
def test_its_app_serves_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_audit: bool) -> None:
    found = find(audits.guided(tmp_path / "audit")) if with_audit else None
    files = write_space(tmp_path / "invmm", found)
    served: list[Path | None] = []
    monkeypatch.setattr(app, "serve", served.append)
    monkeypatch.setattr(sys, "path", list(sys.path))
    runpy.run_path(str(files["app.py"]), run_name="__main__")
    assert served == [tmp_path / "invmm" / "audit" if with_audit else None]


def test_it_starts_as_the_hub_starts_it_and_shows_its_audit(invoke: Invoke, tmp_path: Path) -> None:  # noqa: F811
    host().register(invmm_ui)
    audit, out = audits.guided(tmp_path / "audit"), tmp_path / "invmm"
    assert invoke("space", audit, "--out", out)[0] == 0
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (tmp_path / "told").open("w") as told:
        running = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=out,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=told,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )
    assert running.stdout
    line = running.stdout.readline()
    try:
        found = re.fullmatch(r"The page is at (http://127\.0\.0\.1:\d+/) \(Ctrl-C stops it\)\n", line)
        assert found, (tmp_path / "told").read_text()
        assert httpx.get(found[1], timeout=None).status_code == 200
        shown = httpx.get(f"{found[1]}config", timeout=None).json()
        assert find(out / "audit").headline in json.dumps(shown)
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate()
    assert running.returncode == 0, (tmp_path / "told").read_text()


def test_the_command_shows_what_it_would_send_and_sends_it(
    invoke: Invoke,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host().register(invmm_ui)
    out = tmp_path / "invmm"
    command = ["space", audits.guided(tmp_path / "audit"), "--out", out]
    assert invoke(*command)[:2] == (0, f"Wrote the Space to {out}.\n")
    code, _, err = invoke(*command, "--push", "org/other")
    assert (code, "org/invmm" in err) == (1, True)
    with Hub() as hub:
        hub.redirect(monkeypatch, tmp_path / "home")
        printed = invoke.out(*command, "--push", "org/invmm")
        assert "org/invmm will be private." in printed
        assert "+sdk: gradio" in printed
        assert printed.endswith("Nothing was sent. Add --yes to send it.\n")
        assert not hub.repositories
        printed = invoke.out(*command, "--push", "org/invmm", "--yes")
        sent = hub.repositories["spaces/org/invmm"].files
        assert sent["app.py"] == (out / "app.py").read_bytes()
        assert len([json.loads(line) for line in sent["audit/results.jsonl"].splitlines()]) == 7
        hub.refusals["/commit/"] = 403
        code, _, err = invoke(*command, "--pictures", "--push", "org/invmm", "--yes")
        assert (code, err.count("\n")) == (1, 1)
        assert "The Hub refused the space org/invmm (403" in err


@pytest.mark.parametrize("name", ["invmm", "org/other", "org/invmm/more", ""])
def test_a_name_under_which_evaluate_would_not_find_the_metric_is_an_error(name: str) -> None:
    with pytest.raises(InvMMError, match="org/invmm"):
        check_name(name)
