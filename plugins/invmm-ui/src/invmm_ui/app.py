"""The page, written with gradio: browse an audit, and try a model on your own pictures.

The page loads nothing from other servers. Files that gradio writes, such as uploads, go to a temporary folder that is
removed at the end.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import gradio as gr
from PIL import Image

from invmm_eval.plugin import (
    Choices,
    Findings,
    ImageLike,
    InvMMError,
    ModelOptions,
    Plan,
    Result,
    Target,
    find,
    limits,
    make_plan,
    prepare,
    reference,
)
from invmm_ui import view
from invmm_ui.watch import watch

LARGEST_UPLOAD = "5 MB"
KEPT_SECONDS = 900
"""Time that an upload is kept in the temporary folder."""
WAITING = 16
"""Maximum number of waiting visitors: one image is searched at a time."""
PER_PAGE = 24
"""Number of images of an audit on one page."""
ALL = "all"
TITLE = """\
# InvMM
Has this diffusion model memorized this image? It has, if it gives copies of it to every user: if plain samples, made
from random noise, are copies often enough.
"""
INVITATION = "The model {model} makes pictures of {width}x{height} pixels."
OF_REFERENCE = "It is small and was trained on emoji, of which it memorized those that its training set repeats."
_REVEAL = "() => document.getElementById('image').scrollIntoView({block: 'nearest'})"
"""The image that was chosen is below the others."""
OFFERED = {256: 2, 16: 1, 0: 3}
"""Number of pictures to try, by how often the training set has them."""


@contextmanager
def served(
    audit: str | Path | None = None, model: str = reference.NAME, recipe: str = "fast", **settings: Any
) -> Iterator[str]:
    """Serve the page in this context, which yields its address.

    The address is the first free port of 127.0.0.1 from 7860 on, unless gradio's variables ``GRADIO_SERVER_NAME`` and
    ``GRADIO_SERVER_PORT`` are set, as in a Space.

    Args:
        audit: Output folder of an audit to browse; None omits that part.
        model: The model to try, as :func:`invmm_eval.audit` takes it.
        recipe: Name of the recipe of the searches.
        **settings: Changes to the recipe.

    Raises:
        InvMMError: There is no audit in the folder, the model cannot be loaded, or the page cannot be served at the
            address.
    """
    findings = find(audit) if audit else None
    choices = Choices(recipe=recipe, settings=settings)
    if model == reference.NAME:
        settings = {"threshold": reference.THRESHOLD, **settings}
        choices = Choices(similarity="pixel-cosine", recipe=recipe, settings=settings)
    plan = make_plan(ModelOptions(source=model), choices)
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
    """Paper and ink, in a light and a dark form. No font is loaded: each device uses its own."""
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
        input_border_width="1px",
        input_border_color="#625e55",
        input_border_color_dark="#a8a297",
        checkbox_label_background_fill="none",
        checkbox_label_background_fill_dark="none",
    )


@contextmanager
def _written_to(folder: str) -> Iterator[None]:
    """Set the folder that gradio writes to, which it reads from the environment alone."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = folder
    try:
        yield
    finally:
        del os.environ["GRADIO_TEMP_DIR"]
        if before is not None:
            os.environ["GRADIO_TEMP_DIR"] = before


def build(plan: Plan, findings: Findings | None = None) -> gr.Blocks:
    """Build the page without serving it.

    Args:
        plan: The parts and settings of a search.
        findings: An audit to browse; None omits that part.
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
        with gr.Accordion("Limits of this measure", open=False):
            gr.Markdown(
                "\n".join(f"- {limit}" for limit in limits(plan.recipe, plan.backbone.settings.get("prompt_mode")))
            )
    page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    return page


def _try(plan: Plan) -> None:
    """Upload a picture, or choose one of the reference model's, then search for it."""
    is_reference = plan.config["model"] == reference.NAME
    offered = offers(reference.pictures()) if is_reference else []
    micro_batch = reference.MICRO_BATCH if is_reference else None
    _, height, width = plan.backbone.image_shape

    def prepare_target(source: ImageLike) -> tuple[Any, str, Any]:
        try:
            target = prepare(source, plan.backbone.image_shape)
        except InvMMError as error:
            return None, view.refused(str(error)), gr.Button(interactive=False)
        return target, view.ready(target), gr.Button(interactive=True)

    def choose(event: gr.SelectData) -> tuple[Any, str, Any]:
        return prepare_target(offered[event.index].image)

    def measure(target: Any) -> Iterator[str]:
        for seen in watch(plan, Target(target, "the picture"), micro_batch=micro_batch):
            if isinstance(seen, Result):
                yield view.measured(seen, target, plan.threshold)
            else:
                yield view.running(seen, plan.recipe.max_steps, plan.threshold)

    chosen = gr.State()
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            words = INVITATION.format(model=plan.config["model"], width=width, height=height)
            gr.Markdown(f"{words} {OF_REFERENCE if is_reference else ''}")
            upload = gr.File(
                label=f"Your picture, up to {LARGEST_UPLOAD}",
                file_types=["image"],
                type="binary",
                height=140,
                elem_id="upload",
            )
            gr.Markdown("Or choose one with a known history:", visible=is_reference)
            known = gr.Gallery(
                [(picture.image, _history(picture)) for picture in offered],
                show_label=False,
                columns=3,
                height="auto",
                format="png",
                allow_preview=False,
                interactive=False,
                buttons=[],
                visible=is_reference,
                elem_id="known",
                elem_classes="tiles",
            )
            button = gr.Button("Measure", variant="primary", interactive=False, elem_id="measure")
        with gr.Column(scale=3, min_width=320):
            panel = gr.HTML(elem_id="panel")
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    upload.upload(prepare_target, upload, [chosen, panel, button], queue=False, **quiet)
    known.select(choose, None, [chosen, panel, button], queue=False, **quiet)
    button.click(measure, chosen, panel, api_visibility="private", show_progress="minimal")


def offers(known: Sequence[reference.Picture]) -> list[reference.Picture]:
    """The pictures to try, the most repeated first."""
    return [
        picture for copies, count in OFFERED.items() for picture in [p for p in known if p.copies == copies][:count]
    ]


def _history(picture: reference.Picture) -> str:
    return f"{picture.copies} copies in training" if picture.copies else "never in training"


def _browse(findings: Findings) -> None:
    """Filter the images of an audit, and show one."""
    results = tuple(findings.results)
    gr.HTML(view.overview(findings))
    with gr.Row(elem_id="filter"):
        verdict = gr.Radio(
            [(f"all ({findings.images:,})", ALL)]
            + [(f"{verdict} ({count:,})", str(verdict)) for verdict, count in findings.counts.items() if count],
            value=ALL,
            label="Show",
        )
        name = gr.Textbox(label="Name contains", max_lines=1)
        number = gr.Dropdown(**_pages(results), label="Page")
    gallery = gr.Gallery(
        tiles(findings, results, 1),
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

    def fill(verdict: str, name: str) -> tuple[Any, Any]:
        found = matching(results, verdict, name)
        return tiles(findings, found, 1), gr.Dropdown(**_pages(found))

    def turn(verdict: str, name: str, number: int) -> Any:
        return tiles(findings, matching(results, verdict, name), number)

    def look(verdict: str, name: str, number: int, event: gr.SelectData) -> str:
        found = matching(results, verdict, name)
        return view.kept(findings, found[(number - 1) * PER_PAGE + event.index])

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    for changed in (verdict.change, name.submit, name.blur):
        changed(fill, [verdict, name], [gallery, number], **quiet)
    number.input(turn, [verdict, name, number], gallery, **quiet)
    gallery.select(look, [verdict, name, number], panel, **quiet).then(None, js=_REVEAL)


def matching(results: Sequence[Result], verdict: str, name: str) -> list[Result]:
    """The results with this verdict whose name contains the text (case-insensitive)."""
    return [
        result for result in results if verdict in (ALL, result.verdict) and name.casefold() in result.name.casefold()
    ]


def tiles(findings: Findings, found: Sequence[Result], number: int) -> list[tuple[Image.Image, str]]:
    """The images on a page, counted from 1, with their captions."""
    page = found[(number - 1) * PER_PAGE : number * PER_PAGE]
    return [(view.cover(findings, result), view.caption(result)) for result in page]


def _pages(found: Sequence[Result]) -> dict[str, Any]:
    """The choice of a page, hidden if there is only one."""
    count = max(1, -(-len(found) // PER_PAGE))
    return {"choices": list(range(1, count + 1)), "value": 1, "visible": count > 1}


def serve(audit: str | Path | None = None, model: str = reference.NAME, recipe: str = "fast") -> None:
    """Serve the page until interrupted, as :func:`served` does."""
    with served(audit, model, recipe) as address:
        print(f"The page is at {address} (Ctrl-C stops it)", flush=True)
        with suppress(KeyboardInterrupt):
            Event().wait()
