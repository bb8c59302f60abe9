"""The metric of torchmetrics: the model of the moment, and one share of the work for each process."""

import json
from copy import deepcopy
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline
from torchmetrics import MetricTracker

from invmm_eval.audits.run import audit
from invmm_eval.errors import InvMMError
from invmm_eval.integrations.torchmetrics import InvMM
from tests.helpers.command import TINY, python
from tests.helpers.exact import Mixture, pictures

mpl.use("Agg")

IMAGES = pictures(4, (3, 8, 8))

SETTINGS = {**TINY, "plain": 0}
"""Without samples that are drawn once for all images, and so in each process."""
RANKS = """
import json, os, sys
from datetime import timedelta
import torch
from invmm_eval.audits import plan
from invmm_eval.integrations import torchmetrics
from tests.helpers.exact import Mixture, pictures
from tests.integrations.test_torchmetrics import SETTINGS

folder, cases = sys.argv[1], json.loads(sys.argv[2])
rank = int(os.fork() == 0)
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(days=1)
)
images = torch.cat([pictures(2), pictures(3, seed=99)])
class Prompted(Mixture):
    def condition(self, caption=None):
        captions.add(caption)
        return super().condition(caption)

told = []
for shares in cases:
    model, captions = Prompted(images[:2]), set()
    torchmetrics.load = plan.load = lambda *_: model
    metric = torchmetrics.InvMM("the model", recipe="paper", similarity="pixel-cosine", settings=SETTINGS, seed=5)
    if shares[rank]:
        metric.update(images[shares[rank]], captions=[f"No. {index}\\n🙂" for index in shares[rank]])
    found = {name: value.tolist() for name, value in metric.compute().items()}
    told.append({"found": found, "rows": sum(model.rows_seen), "images": len(metric.pixels)})
    told[-1]["captions"] = sorted(captions - {None})
with open(f"{folder}/{rank}.json", "w") as file:
    json.dump(told, file)
torch.distributed.destroy_process_group()
os.waitpid(-1, 0) if rank == 0 else os._exit(0)
"""


@pytest.mark.usefixtures("exact")
def test_memorized_images_are_told_from_others() -> None:
    metric = InvMM("any", backbone="exact", similarity="pixel-cosine")
    metric.update(torch.cat([pictures(2), pictures(1, seed=99)]))
    found = metric.compute()
    told = audit("any", [*pictures(2), *pictures(1, seed=99)], backbone="exact", similarity="pixel-cosine")
    assert found["invmm"].tolist() == pytest.approx([result.invmm for result in told])
    assert found["invmm"].isfinite().tolist() == [True, True, False]
    assert found["similarity"].tolist() == pytest.approx([result.similarity for result in told])
    assert found["replicated_fraction"] == pytest.approx(2 / 3)


def test_each_compute_measures_the_model_of_the_moment(tiny_pipeline: DDIMPipeline) -> None:
    model = deepcopy(tiny_pipeline)
    metric = InvMM(model, settings=TINY)
    metric.update(IMAGES)
    tracker = MetricTracker(metric, maximize=False)
    before = metric.compute()["similarity"]
    with torch.no_grad():
        for parameter in model.unet.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    after = metric.compute()["similarity"]
    assert not torch.equal(before, after)
    assert after.tolist() == pytest.approx([result.similarity for result in audit(model, [*IMAGES], settings=TINY)])
    tracker.increment()
    tracker.update(IMAGES)
    assert torch.equal(tracker.compute()["similarity"], after), "a copy of the metric has no model of its own"


def test_images_may_come_in_batches_and_count_once(tiny_pipeline: DDIMPipeline) -> None:
    metric = InvMM(tiny_pipeline, settings=TINY)
    metric.update(IMAGES)
    whole = metric.compute()
    metric.reset()
    metric.update(IMAGES[:1])
    metric.update([IMAGES[1], IMAGES[0], *IMAGES[2:].float() / 255])
    assert all(
        torch.allclose(value, whole[name], rtol=0, atol=0, equal_nan=True) for name, value in metric.compute().items()
    )
    assert torch.equal(InvMM(tiny_pipeline, settings=TINY)(IMAGES)["similarity"], whole["similarity"])


def test_what_cannot_be_measured_is_told(tiny_pipeline: DDIMPipeline) -> None:
    metric = InvMM(tiny_pipeline, settings=TINY)
    with pytest.raises(InvMMError, match="no image to watch"), pytest.warns(UserWarning, match="before the ``update``"):
        metric.compute()
    with pytest.raises(InvMMError, match="shape"):
        metric.update(torch.zeros(1, 5, 8, 8))
    with pytest.raises(InvMMError, match="3 captions for 2 images"):
        metric.update(IMAGES[:2], captions=["a", "b", "c"])
    with pytest.raises(ValueError, match="batchsize"):
        InvMM(tiny_pipeline, batchsize=3)


def test_a_search_that_fails_is_not_a_number(tiny_pipeline: DDIMPipeline, caplog: pytest.LogCaptureFixture) -> None:
    model = deepcopy(tiny_pipeline)
    torch.nn.init.constant_(model.unet.conv_out.bias, torch.nan)
    metric = InvMM(model, settings=TINY)
    metric.update(IMAGES[:1])
    assert all(value.isnan().all() for value in metric.compute().values())
    assert "estimates of x_0 are not finite" in caplog.text


def test_the_drawing_shows_each_image_over_checkpoints(tiny_pipeline: DDIMPipeline) -> None:
    values = [{"invmm": torch.tensor(row)} for row in ([torch.inf, 0.2, torch.inf], [0.1, 0.4, torch.nan])]
    figure, axes = InvMM(tiny_pipeline).plot(values)
    drawn = {tuple(map(tuple, np.asarray(line.get_xydata()).round(3).tolist())) for line in axes.lines}
    assert drawn >= {((2, 0.1),), ((1, 0.2), (2, 0.4))}, "where they were replicated"
    assert drawn >= {((1, 0.8),)}, "above all, where they were not"
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["image 0", "image 1", "image 2"]
    alone, _ = InvMM(tiny_pipeline).plot(values[1], axes)
    assert alone is figure


def test_shares_are_drawn_where_they_are_known(tiny_pipeline: DDIMPipeline) -> None:
    shares = ([0.0, 0.2], [0.1, torch.nan])
    values = [{"invmm": torch.tensor([0.01, 0.01]), "plain_share": torch.tensor(row)} for row in shares]
    _, axes = InvMM(tiny_pipeline).plot(values)
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    drawn = {
        (tuple(map(tuple, np.asarray(line.get_xydata()).round(3).tolist())), line.get_markerfacecolor() != "none")
        for line in marks
    }
    assert drawn >= {(((2, 0.1),), True), (((1, 0.05),), False)}, "below all where no copy was found"
    assert "share" in axes.get_ylabel()


def test_two_processes_share_the_work(exact: Mixture, tmp_path: Path) -> None:
    shared_out, the_same_for_both, one_has_none = [[0, 2, 3], [1, 4, 0]], [[0, 1, 2], [0, 1, 2]], [[1, 3], []]
    distinct = [[0, 2, 3, 1, 4], [0, 1, 2], [1, 3]]
    cases = [shared_out, the_same_for_both, one_has_none]
    code, _, err = python(RANKS, tmp_path, json.dumps(cases))
    assert code == 0, err
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    for shares, images, *both in zip(cases, distinct, *told, strict=True):
        exact.rows_seen.clear()
        alone = InvMM("any", backbone="exact", recipe="paper", similarity="pixel-cosine", settings=SETTINGS, seed=5)
        alone.update(torch.cat([pictures(2), pictures(3, seed=99)])[images])
        found = alone.compute()
        for process, share in zip(both, shares, strict=True):
            assert process["found"].keys() == found.keys()
            for name, values in process["found"].items():
                assert values == pytest.approx(found[name].tolist(), nan_ok=True), name
            assert process["images"] == len(share), "each keeps its own images"
            assert process["rows"] > 0, "each does a share"
        assert sum(process["rows"] for process in both) == sum(exact.rows_seen), "nothing is measured twice"
        captions = [caption for process in both for caption in process["captions"]]
        assert sorted(captions) == [f"No. {index}\n🙂" for index in sorted(images)], "each image has its own"
