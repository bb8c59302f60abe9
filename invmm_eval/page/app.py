"""The page itself, in gradio: an audit to browse, and the reference model to try on a picture of one's own.

Nothing is fetched from anywhere else. What gradio writes, uploads above all, goes to a temporary folder that is
removed at the end.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

from PIL import Image

from invmm_eval.audits.auditing import Plan, load_backbone, make_plan
from invmm_eval.audits.images import ImageLike, Source, prepare
from invmm_eval.errors import InvMMError
from invmm_eval.page import view
from invmm_eval.page.watch import watch
from invmm_eval.reference import MICRO_BATCH, MODEL, THRESHOLD, Picture, pictures
from invmm_eval.reports.findings import LIMITS, Findings, find
from invmm_eval.search.fields import STATUS_WORDS
from invmm_eval.search.result import Result

try:
    import gradio as gr
except ImportError as error:
    raise InvMMError('The page needs gradio: pip install "invmm-eval[page]".') from error

LARGEST_UPLOAD = "5 MB"
KEPT_SECONDS = 900
"""How long an upload lies in the temporary folder."""
WAITING = 16
"""So many people wait at most: one image is searched at a time."""
PER_PAGE = 24
"""Images of an audit that are shown together."""
ALL = "all"
TITLE = """\
# InvMM
Has this diffusion model memorized this image? InvMM measures how far noise must be bent before the model makes the
image every time, in nats per dimension: small means memorized.
"""
INVITATION = """\
The model here is small and makes pictures of 32x32 pixels. It was trained on emoji, some of them repeated: those it
memorized. A search takes at most {steps} steps, about half a minute.
"""
OFFERED = {256: 2, 16: 1, 0: 3}
"""How many pictures are offered to try that were so many times in the training set."""


@contextmanager
def served(audit: str | Path | None = None, **settings: Any) -> Iterator[str]:
    """The page at an address, as long as the context lasts.

    That is the first free port of loopback from 7860 on, unless gradio's own ``GRADIO_SERVER_NAME`` and
    ``GRADIO_SERVER_PORT`` say another, as in a Space.

    Args:
        audit: The folder of an audit to browse; None leaves that part out.
        **settings: Changes to the recipe that pictures are tried with.

    Raises:
        InvMMError: There is no audit in the folder, or the address cannot be served at.
    """
    findings = find(audit) if audit else None
    settings = {"threshold": THRESHOLD, **settings}
    plan = make_plan(load_backbone(MODEL), MODEL, similarity="pixel-cosine", recipe="demo", settings=settings)
    with TemporaryDirectory(prefix="invmm-page-", ignore_cleanup_errors=True) as folder, _written_to(folder):
        page = build(plan, findings)
        try:
            _, address, _ = page.launch(
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                run_history=False,
                enable_monitoring=False,
                footer_links=[],
                max_file_size=LARGEST_UPLOAD,
                theme=_theme(),
                css_paths=Path(__file__).with_name("page.css"),
            )
        except OSError as error:
            raise InvMMError(f"The page cannot be served: {' '.join(str(error).split())}") from error
        try:
            yield address
        finally:
            page.close(verbose=False)


def _theme() -> gr.themes.Base:
    """Paper and ink, by day and by night; no font is loaded, each device takes its own."""
    return gr.themes.Base(
        font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace"), neutral_hue="stone"
    ).set(
        body_background_fill="#fbfaf7",
        body_background_fill_dark="#171614",
        body_text_color_subdued="#625e55",
        body_text_color_subdued_dark="#a8a297",
        block_background_fill="#fbfaf7",
        block_background_fill_dark="#171614",
        button_primary_background_fill="#23211d",
        button_primary_background_fill_hover="#3a3731",
        button_primary_text_color="#fbfaf7",
        button_primary_background_fill_dark="#e8e4da",
        button_primary_background_fill_hover_dark="#ffffff",
        button_primary_text_color_dark="#171614",
        link_text_color="#1f5a8a",
        link_text_color_dark="#8dbfe8",
        checkbox_label_background_fill="none",
        checkbox_label_background_fill_dark="none",
    )


@contextmanager
def _written_to(folder: str) -> Iterator[None]:
    """Where gradio writes is known to it by the environment alone."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = folder
    try:
        yield
    finally:
        del os.environ["GRADIO_TEMP_DIR"]
        if before is not None:
            os.environ["GRADIO_TEMP_DIR"] = before


def build(plan: Plan, findings: Findings | None = None) -> gr.Blocks:
    """The page, not served yet.

    Args:
        plan: How a picture is tried.
        findings: An audit to browse; None leaves that part out.
    """
    with gr.Blocks(
        title="InvMM", analytics_enabled=False, delete_cache=(KEPT_SECONDS // 3, KEPT_SECONDS), fill_width=False
    ) as page:
        gr.Markdown(TITLE)
        if findings:
            with gr.Tab("The audit"):
                _browse(findings)
        with gr.Tab("Try a picture"):
            _try(plan)
        with gr.Accordion("What this cannot tell", open=False):
            gr.Markdown("\n".join(f"- {limit}" for limit in LIMITS))
    page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    return page


def _try(plan: Plan) -> None:
    """Upload or choose a picture, then search."""
    offered = offers(pictures())

    def take(source: ImageLike) -> tuple[Any, str, Any]:
        try:
            target = prepare(source, plan.backbone.image_shape)
        except InvMMError as error:
            return None, view.refused(str(error)), gr.Button(interactive=False)
        return target, view.ready(target), gr.Button(interactive=True)

    def choose(event: gr.SelectData) -> tuple[Any, str, Any]:
        return take(offered[event.index].image)

    def measure(target: Any) -> Iterator[str]:
        for told in watch(plan, Source("the picture", target), micro_batch=MICRO_BATCH):
            if isinstance(told, Result):
                yield view.measured(told, target, plan.threshold)
            else:
                yield view.under_way(told, plan.recipe.max_steps, plan.threshold)

    chosen = gr.State()
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            gr.Markdown(INVITATION.format(steps=plan.recipe.max_steps))
            upload = gr.File(
                label=f"A picture of yours, of at most {LARGEST_UPLOAD}",
                file_types=["image"],
                type="binary",
                height=140,
                elem_id="upload",
            )
            gr.Markdown("Or take one whose history is known:")
            known = gr.Gallery(
                [(picture.image, _history(picture)) for picture in offered],
                show_label=False,
                columns=3,
                height="auto",
                format="png",
                allow_preview=False,
                interactive=False,
                buttons=[],
                elem_id="known",
                elem_classes="tiles",
            )
            button = gr.Button("Measure", variant="primary", interactive=False, elem_id="measure")
        with gr.Column(scale=3, min_width=320):
            panel = gr.HTML(elem_id="panel")
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    upload.upload(take, upload, [chosen, panel, button], queue=False, **quiet)
    known.select(choose, None, [chosen, panel, button], queue=False, **quiet)
    button.click(measure, chosen, panel, api_visibility="private", show_progress="minimal")


def offers(known: Sequence[Picture]) -> list[Picture]:
    """The pictures that are offered to try, the most repeated first."""
    return [
        picture for copies, count in OFFERED.items() for picture in [p for p in known if p.copies == copies][:count]
    ]


def _history(picture: Picture) -> str:
    return f"{picture.copies} copies in training" if picture.copies else "never in training"


def _browse(findings: Findings) -> None:
    """Filter the images of an audit, and look at one."""
    gr.HTML(view.overview(findings))
    counts = {word: sum(STATUS_WORDS[r.status] == word for r in findings.results) for word in STATUS_WORDS.values()}
    with gr.Row(elem_id="filter"):
        status = gr.Radio(
            [(f"all ({findings.images:,})", ALL)]
            + [(f"{word} ({count:,})", word) for word, count in counts.items() if count],
            value=ALL,
            label="Show",
        )
        name = gr.Textbox(label="whose name contains", max_lines=1)
        number = gr.Dropdown(**_pages(findings.results), label="Page")
    gallery = gr.Gallery(
        tiles(findings, findings.results, 1),
        show_label=False,
        columns=8,
        height="auto",
        format="png",
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_id="images",
        elem_classes="tiles",
    )
    panel = gr.HTML(elem_id="image")

    def fill(status: str, name: str) -> tuple[Any, Any]:
        found = matching(findings.results, status, name)
        return tiles(findings, found, 1), gr.Dropdown(**_pages(found))

    def turn(status: str, name: str, number: int) -> Any:
        return tiles(findings, matching(findings.results, status, name), number)

    def look(status: str, name: str, number: int, event: gr.SelectData) -> str:
        found = matching(findings.results, status, name)
        return view.kept(findings, found[(number - 1) * PER_PAGE + event.index])

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    for changed in (status.change, name.submit, name.blur):
        changed(fill, [status, name], [gallery, number], **quiet)
    number.input(turn, [status, name, number], gallery, **quiet)
    gallery.select(look, [status, name, number], panel, **quiet)


def matching(results: Sequence[Result], status: str, name: str) -> list[Result]:
    """The results of that status, in words, whose name contains that text, in whatever case."""
    return [
        result
        for result in results
        if status in (ALL, STATUS_WORDS[result.status]) and name.casefold() in result.name.casefold()
    ]


def tiles(findings: Findings, found: Sequence[Result], number: int) -> list[tuple[Image.Image, str]]:
    """A page of images, counted from 1, with what is written beneath them."""
    page = found[(number - 1) * PER_PAGE : number * PER_PAGE]
    return [(view.cover(findings, result), view.caption(result)) for result in page]


def _pages(found: Sequence[Result]) -> dict[str, Any]:
    """The choice among pages, hidden where there is none."""
    count = max(1, -(-len(found) // PER_PAGE))
    return {"choices": list(range(1, count + 1)), "value": 1, "visible": count > 1}


def serve(audit: str | Path | None = None) -> None:
    """Serve the page, with an audit to browse where one is named, until it is interrupted."""
    with served(audit) as address:
        print(f"The page is at {address}", flush=True)
        with suppress(KeyboardInterrupt):
            Event().wait()
