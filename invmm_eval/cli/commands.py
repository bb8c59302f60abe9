"""The command line. Heavy imports are inside commands: ``--help`` and ``plugins`` answer without torch."""

import dataclasses
import json
import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from heapq import nsmallest
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from invmm_eval.errors import InvMMError

if TYPE_CHECKING:
    from invmm_eval.audits.auditing import Choices
    from invmm_eval.reports.hub import Content, Repository

out = Console()
err = Console(stderr=True)

SHOWN = 100
"""At most so many images are in the table that ends a run."""


class Commands(TyperGroup):
    """Runs a command; an expected error is told in one sentence with exit code 1, an interruption with 128 + signal."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        signals = [signal.SIGINT]
        try:
            with _terminable(signals):
                return super().invoke(ctx)
        except InvMMError as error:
            if ctx.params["debug"]:
                raise
            err.print("[red]error[/]", Text(str(error)), soft_wrap=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as interruption:
            err.print("Stopped. What was finished is kept; the same command goes on from there.", soft_wrap=True)
            raise typer.Exit(128 + signals[-1]) from interruption


@contextmanager
def _terminable(signals: list[signal.Signals]) -> Iterator[None]:
    """SIGTERM, by which schedulers end what has run out of time, stops a command as Ctrl-C does.

    It is added to the signals: libraries such as Ray raise a KeyboardInterrupt of their own, which does not tell it.
    """

    def interrupt(number: int, _: object) -> None:
        signals.append(signal.Signals(number))
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


app = typer.Typer(
    cls=Commands,
    help="Has this diffusion model memorized this image? InvMM measures how far the noise must be bent for a replica.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Recipe = Annotated[
    str, typer.Option(help="paper: the published settings of the model's family; dose: by dose; demo: a short one.")
]
Settings = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change one of the recipe's settings; may be repeated.")
]
Seed = Annotated[int, typer.Option(help="With an image's pixels it decides all its random numbers.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; CUDA is taken where there is one.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of an audit, as --out named it.")]
Names = Annotated[bool, typer.Option("--names", help="Tell names, prompts and errors of images; else their digests.")]
Pictures = Annotated[bool, typer.Option("--pictures", help="Show images and samples, which may be private.")]
Yes = Annotated[bool, typer.Option("--yes", help="Send it; without, what would be sent is shown.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images searched together.")]
MicroBatch = Annotated[int | None, typer.Option(min=1, help="At most so many rows in the network at once.")]
Dtype = Annotated[str, typer.Option(help="Precision of the network: float32, float16 or bfloat16.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.")]
Backbone = Annotated[str | None, typer.Option(help="Registered name; found by the pipeline's class if not given.")]
BackboneOptions = Annotated[list[str], typer.Option(metavar="KEY=VALUE", help="For example prompt-mode=caption.")]
Captions = Annotated[
    str | None,
    typer.Option(help="Where each image's text is: a column of the dataset, or an ending of files such as .txt."),
]
Similarity = Annotated[str | None, typer.Option(help="Registered name: sscd, pixel-cosine, ssim, ...")]
SimilarityOptions = Annotated[list[str], typer.Option(metavar="KEY=VALUE", help="For example side=64.")]
Noise = Annotated[str, typer.Option(help="Registered name of the noise family.")]
NoiseOptions = Annotated[list[str], typer.Option(metavar="KEY=VALUE", help="For example rank=8.")]


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: ARG001
) -> None:
    """What comes before the commands; :class:`Commands` reads ``debug``."""
    if version:
        typer.echo(f"invmm-eval {installed('invmm-eval')}")
        raise typer.Exit


@app.command()
def run(
    model: Annotated[str, typer.Option(help="A folder that save_pretrained wrote, or a Hub id.")],
    images: Annotated[list[str], typer.Option(help="A folder, files, or dataset:NAME[:split[:column]].")],
    out_folder: Annotated[Path, typer.Option("--out", help="Where results go; an audit there is gone on with.")],
    more: Annotated[
        list[str], typer.Argument(metavar="[IMAGES]...", help="More images, as --images *.png gives.")
    ] = [],  # noqa: B006
    revision: Revision = None,
    backbone: Backbone = None,
    backbone_option: BackboneOptions = [],  # noqa: B006
    captions: Captions = None,
    similarity: Similarity = None,
    similarity_option: SimilarityOptions = [],  # noqa: B006
    noise: Noise = "diagonal-gaussian",
    noise_option: NoiseOptions = [],  # noqa: B006
    recipe: Recipe = "paper",
    settings: Settings = [],  # noqa: B006
    calibration: Annotated[
        Path | None, typer.Option(help="Takes the threshold from what invmm-eval calibrate wrote.")
    ] = None,
    seed: Seed = 0,
    batch_size: BatchSize = 8,
    micro_batch: MicroBatch = None,
    device: Device = None,
    dtype: Dtype = "float32",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes of Ray, here or, where RAY_ADDRESS names one, on a cluster."),
    ] = None,
) -> None:
    """Measure how much a model memorized each of some images."""
    from invmm_eval.audits.auditing import Order
    from invmm_eval.audits.calibration import Calibration
    from invmm_eval.audits.images import find_images
    from invmm_eval.audits.store import read
    from invmm_eval.audits.workers import launched
    from invmm_eval.cli.progress import Bar
    from invmm_eval.reports.findings import whole
    from invmm_eval.reports.terminal import results_table
    from invmm_eval.search.result import rank

    choices = _choices(similarity, similarity_option, noise, noise_option, recipe, settings, seed)
    choices["calibration"] = Calibration.load(calibration) if calibration else None
    ranks, leads = launched()
    if not leads:
        err.quiet = True
        logging.disable(logging.WARNING)
    if ranks > 1 and workers:
        raise InvMMError(f"A launcher started this command as {ranks} processes already; leave --workers out.")
    sources = find_images(*images, *more, captions=captions) if leads else []
    quiet()
    order = Order(model, backbone, revision, dtype, pairs(backbone_option), choices)
    with Bar(len(sources), err) as bar:
        measured = order.run(
            sources,
            device=device,
            workers="ranks" if ranks > 1 else workers,
            out=out_folder,
            batch_size=batch_size,
            micro_batch=micro_batch,
            on_step=bar.on_step,
        )
        for _ in bar.over(measured):
            pass
    if not leads:
        return
    audit = read(out_folder)
    progress = audit.progress
    out.print(results_table(nsmallest(SHOWN, map(audit.result, audit.rows), key=rank)))
    if len(audit.rows) > SHOWN:
        typer.echo(f"These are the {SHOWN} most memorized of {len(audit.rows):,}.")
    typer.echo(f"{progress.replicated} of {len(sources)} images were replicated; {progress.failed} failed.")
    if progress.done:
        typer.echo(whole(progress.replicated, progress.done))
    typer.echo(f"Results are in {out_folder}.")
    if progress.failed == len(sources):
        raise InvMMError(f"No image could be measured; the first error: {audit.rows[0]['error']}")


@app.command()
def calibrate(
    model: Annotated[str, typer.Argument(help="A folder that save_pretrained wrote, or a Hub id.")],
    held_out: Annotated[
        list[str], typer.Option(help="Images that the model never saw: a folder, files, or dataset:NAME[:...].")
    ],
    out_folder: Annotated[Path, typer.Option("--out", help="Where the searches and calibration.json go.")],
    rate: Annotated[float, typer.Option(help="The share of such images that may count as replicated.")] = 0.05,
    revision: Revision = None,
    backbone: Backbone = None,
    backbone_option: BackboneOptions = [],  # noqa: B006
    captions: Captions = None,
    similarity: Similarity = None,
    similarity_option: SimilarityOptions = [],  # noqa: B006
    noise: Noise = "diagonal-gaussian",
    noise_option: NoiseOptions = [],  # noqa: B006
    recipe: Recipe = "paper",
    settings: Settings = [],  # noqa: B006
    seed: Seed = 0,
    batch_size: BatchSize = 8,
    micro_batch: MicroBatch = None,
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Set the similarity threshold on images that the model never saw, at a stated rate of false replicas."""
    from invmm_eval.audits.auditing import Order
    from invmm_eval.audits.calibration import FILE
    from invmm_eval.audits.calibration import calibrate as find
    from invmm_eval.audits.images import find_images
    from invmm_eval.cli.progress import Bar
    from invmm_eval.statistics.binomial import CONFIDENCE, percent

    choices = _choices(similarity, similarity_option, noise, noise_option, recipe, settings, seed)
    sources = find_images(*held_out, captions=captions)
    quiet()
    plan = Order(model, backbone, revision, dtype, pairs(backbone_option), choices).plan(device)
    with Bar(len(sources), err) as bar:
        found = find(
            plan,
            sources,
            rate=rate,
            out=out_folder,
            batch_size=batch_size,
            micro_batch=micro_batch,
            on_step=bar.on_step,
            over=bar.over,
        )
    typer.echo(
        f"From a similarity of {found.threshold:g} on an image is to count as replicated: {found.reached:,} of "
        f"{found.images:,} held-out images reach it, and of more images like them at most {percent(found.limit)} do, "
        f"at {percent(CONFIDENCE)} confidence."
    )
    typer.echo(f"invmm-eval run --calibration {out_folder / FILE} takes it, with all else as here.")


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(help="The folder of an audit.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file of tensors and compare its SHA-256.")
    ] = False,
) -> None:
    """Tell how far an audit has come, at what rate, and how long it still takes."""
    from invmm_eval.audits.store import read

    audit = read(folder)
    now = audit.progress
    typer.echo(
        f"{now.done:,} of {now.images:,} images are done: {now.replicated:,} replicated, {now.exhausted:,} not "
        f"replicated; {now.failed:,} failed, {now.waiting:,} are waiting."
    )
    rate = "" if now.rate is None else f" at {3600 * now.rate:,.1f} images an hour"
    left = "" if now.left is None or not now.waiting else f"; {timedelta(seconds=round(now.left.total_seconds()))} left"
    if now.running:
        typer.echo(f"It is running{rate}{left}.")
    elif now.waiting or now.failed:
        typer.echo(f"It is not running{rate and f', and went{rate}'}{left}; the same command goes on with it.")
    if verify:
        damaged = list(audit.damaged())
        for sentence in damaged:
            err.print(Text(sentence), soft_wrap=True)
        typer.echo(f"Damaged files of tensors: {len(damaged)}.")
        raise typer.Exit(bool(damaged))


@app.command()
def demo(
    out_folder: Annotated[Path, typer.Option("--out", help="Where results and the picture go.")] = Path("demo"),
    recipe: Recipe = "demo",
    settings: Settings = [],  # noqa: B006
    seed: Seed = 0,
    batch_size: BatchSize = 8,
    device: Device = None,
) -> None:
    """Audit the reference model, where it is known which images were repeated in training."""
    from invmm_eval.cli.demo import run_demo
    from invmm_eval.recipe import Recipe as Settings

    quiet()
    run_demo(
        out_folder,
        recipe=recipe,
        settings=Settings.parse(settings),
        seed=seed,
        batch_size=batch_size,
        device=device,
        out=out,
        err=err,
    )


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of an audit.")],
    out_file: Annotated[Path | None, typer.Option("--out", help="Where to write; report.FORMAT in the folder.")] = None,
    form: Annotated[
        str, typer.Option("--format", help="html: the whole; png, svg: the figure; csv, parquet: the table.")
    ] = "html",
) -> None:
    """Write the report of an audit: one HTML file, or its figure or table alone."""
    from invmm_eval.reports import report as write

    typer.echo(f"The report is {write(folder, out_file, form)}.")


@app.command()
def plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the plugins and what each gives; broken ones are told on stderr."""
    from invmm_eval.plugins.host import host

    if as_json:
        listing = {
            "plugins": [dataclasses.asdict(plugin) for plugin in host().plugins],
            "broken": [dataclasses.asdict(plugin) for plugin in host().broken],
        }
        typer.echo(json.dumps(listing, indent=2))
        return
    table = Table("plugin", "distribution", "version", "hooks", "gives")
    for plugin in host().plugins:
        gives = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in plugin.gives.items() if names)
        table.add_row(plugin.name, plugin.distribution, plugin.version, "\n".join(plugin.hooks), gives)
    out.print(table)


@app.command("new-plugin")
def new_plugin(
    name: Annotated[str, typer.Argument(help="Of the package and of the part it gives: lower-case words and hyphens.")],
    kind: Annotated[str, typer.Option(help="backbone, similarity or noise.")],
) -> None:
    """Write a package with a plugin whose tests pass, to be changed into yours."""
    from invmm_eval.plugins.scaffold import new_plugin as write

    folder = write(name, kind, Path())
    typer.echo(f'Wrote {folder}. To try it: cd {folder} && pip install -e ".[test]" && pytest')


@app.command()
def register(
    remove: Annotated[bool, typer.Option("--remove", help="Take the metric away again.")] = False,
) -> None:
    """Make evaluate.load("invmm") find the metric by its bare name."""
    from invmm_eval.metric.registration import register as place
    from invmm_eval.metric.registration import unregister

    if remove:
        removed = unregister()
        typer.echo(f"Removed {removed}." if removed else "The metric was not registered.")
    else:
        typer.echo(f'evaluate.load("invmm") now finds {place()}')
        typer.echo(
            "It asks the Hub first: where the network hangs, set HF_EVALUATE_OFFLINE=1 (HF_HUB_OFFLINE does not do)."
        )


@app.command()
def card(
    folder: Folder,
    model_card: Annotated[Path, typer.Option(help="The model's README.md; made where there is none.")],
    names: Names = False,
    pictures: Pictures = False,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="ORG/DATASET", help="The data set of the images or results, for .eval_results."),
    ] = None,
    push: Annotated[
        str | None, typer.Option(metavar="ORG/MODEL", help="Propose the same for the card of a model on the Hub.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Write an audit into a model's card, and propose it on the Hub."""
    from invmm_eval.reports.card import addition
    from invmm_eval.reports.findings import find
    from invmm_eval.reports.hub import Repository

    added = addition(find(folder).public(names=names), pictures=pictures, dataset=dataset)
    added.save(model_card)
    typer.echo(f"The audit is in {model_card}.")
    if push:
        there = Repository.find(push, "model")
        files = {"README.md": added.to(there.read("README.md") or b""), **added.files}
        offer(there, files, "Add a memorization audit (InvMM)", yes=yes, pull_request=True)


@app.command()
def push(
    folder: Folder,
    repository: Annotated[str, typer.Argument(metavar="ORG/DATASET", help="Made where the Hub has none.")],
    names: Names = False,
    pictures: Pictures = False,
    public: Annotated[bool, typer.Option("--public", help="Make a data set that everybody may see.")] = False,
    yes: Yes = False,
) -> None:
    """Publish the results of an audit as a data set on the Hub."""
    from invmm_eval.reports.dataset import write_dataset
    from invmm_eval.reports.findings import find
    from invmm_eval.reports.hub import Repository

    files = write_dataset(find(folder).public(names=names), folder / "dataset", pictures=pictures)
    typer.echo(f"The data set is in {folder / 'dataset'}.")
    there = Repository.find(repository, "dataset", missing_ok=True)
    publish(there, files, "Results of a memorization audit (InvMM)", public=public, yes=yes)


@app.command()
def ui(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="The folder of an audit to browse, as --out named it.")
    ] = None,
) -> None:
    """Open a page on this computer: browse an audit, and try the reference model on pictures of your own."""
    from invmm_eval.page.app import serve

    quiet()
    serve(folder)


@app.command()
def space(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="The folder of an audit that the Space is to show; its results go there."),
    ] = None,
    out_folder: Annotated[Path, typer.Option("--out", help="Where the Space is written.")] = Path("invmm"),
    names: Names = False,
    pictures: Pictures = False,
    push: Annotated[
        str | None, typer.Option(metavar="ORG/INVMM", help="Send it to the Hub; made where there is none.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make a Space that everybody may see.")] = False,
    yes: Yes = False,
) -> None:
    """Write a Space: the page, and the metric for evaluate.load("org/invmm")."""
    from invmm_eval.page.space import check_name, write_space
    from invmm_eval.reports.findings import find
    from invmm_eval.reports.hub import Repository

    if push:
        check_name(push)
    findings = find(folder).public(names=names) if folder else None
    files = write_space(out_folder, findings, pictures=pictures)
    typer.echo(f"The Space is in {out_folder}.")
    if push:
        there = Repository.find(push, "space", missing_ok=True)
        publish(there, files, "InvMM: the page and the metric", public=public, yes=yes)


def publish(repository: "Repository", files: "Mapping[str, Content]", message: str, *, public: bool, yes: bool) -> None:
    """Tell who sees a repository, which is made where there is none, and send files to it as :func:`offer` does."""
    seen = "private" if (repository.private if repository.head else not public) else "public"
    typer.echo(f"On the Hub {repository.name} {'is' if repository.head else 'will be'} {seen}.")
    offer(repository, files, message, yes=yes, private=not public)


def offer(repository: "Repository", files: "Mapping[str, Content]", message: str, *, yes: bool, **how: bool) -> None:
    """Send files to the Hub, or show what would be sent."""
    if yes:
        typer.echo(repository.send(files, message, **how) or f"{repository.name} has all of this already.")
    else:
        typer.echo(repository.diff(files) or f"{repository.name} has all of this already.\n", nl=False)
        typer.echo("Nothing was sent; --yes sends it.")


def quiet() -> None:
    """Leave the terminal to this program: diffusers and transformers draw bars, even where there is no terminal."""
    from diffusers.utils.logging import disable_progress_bar
    from transformers.utils import logging

    disable_progress_bar()
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _choices(
    similarity: str | None,
    similarity_options: list[str],
    noise: str,
    noise_options: list[str],
    recipe: str,
    settings: list[str],
    seed: int,
) -> "Choices":
    from invmm_eval.recipe import Recipe as Settings

    return {
        "similarity": similarity,
        "similarity_options": pairs(similarity_options),
        "noise": noise,
        "noise_options": pairs(noise_options),
        "recipe": recipe,
        "settings": Settings.parse(settings),
        "seed": seed,
    }


def pairs(texts: list[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` texts; truth values and numbers become such.

    Raises:
        InvMMError: A text without ``=``.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvMMError(f"{text!r} is not KEY=VALUE.")
        found[key.replace("-", "_")] = read_value(value)
    return found


def read_value(text: str) -> bool | int | float | str:
    """The truth value or number that a text is, or the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def main() -> None:
    """Run the command of this process."""
    app(prog_name="invmm-eval")
