"""What ``encode_prompt`` of a pipeline returns, as plain tensors with a row for each prompt, and back.

Families return tuples of tensors, lists with an entry for each prompt, and tensors whose rows are not their first
dimension. Which parts count prompts is seen by encoding one prompt and the same prompt twice.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.condition import Context

SIZES = "sizes"
"""The name under which a context keeps the sizes of its rows, where those of two prompts differ."""

Path = tuple[int | str, ...]


def layout(one: Any, two: Any, path: Path = ()) -> dict[Path, int | None]:
    """Where rows are in an encoding: for each path of tensors their dimension, or None for a list with an entry each.

    Args:
        one: The encoding of a prompt.
        two: The encoding of the same prompt twice.
        path: Where both are in the whole.
    """
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        grown = [axis for axis, (a, b) in enumerate(zip(one.shape, two.shape, strict=True)) if (a, b) == (1, 2)]
        return {path: grown[0]} if grown else {}
    if isinstance(one, list) and isinstance(two, list) and (len(one), len(two)) == (1, 2):
        return {path: None}
    found: dict[Path, int | None] = {}
    if isinstance(one, Mapping | list | tuple):
        for key, part in _parts(one):
            found |= layout(part, two[key], (*path, key))
    return found


def take(tree: Any, where: Mapping[Path, int | None]) -> dict[str, Tensor]:
    """An encoding's tensors, with a row for each prompt.

    Raises:
        InvMMError: An entry of a list is neither a tensor nor a list of tensors, or entries have different sizes.
    """
    found: dict[str, Tensor] = {}
    missing = []
    for path, axis in where.items():
        part = tree
        for key in path:
            part = part[key]
        if part is None:
            missing.append(_name(path))
            continue
        if axis is not None:
            found[_name(path)] = part.movedim(axis, 0)
            continue
        rows = [_tensors(entry, path) for entry in part]
        for named in zip(*rows, strict=True):
            found[named[0][0]] = torch.stack([tensor for _, tensor in named])
    for name in missing:
        # A mask that is left out keeps every token.
        tokens = next(tensor for tensor in found.values() if tensor.ndim > 2)
        found[name] = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    return found


def put(tree: Any, where: Mapping[Path, int | None], context: Context, path: Path = ()) -> Any:
    """An encoding of as many prompts as ``context`` has rows, in the form of ``tree``, that of one prompt."""
    if path in where:
        axis = where[path]
        if axis is not None:
            return context[_name(path)].movedim(0, axis).contiguous()
        names = [name for name, _ in _tensors(tree[0], path)]
        return [_filled(tree[0], iter([context[name][row] for name in names])) for row in range(rows_of(context))]
    if isinstance(tree, Mapping):
        return {key: put(part, where, context, (*path, key)) for key, part in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)([put(part, where, context, (*path, key)) for key, part in _parts(tree)])
    return tree


def rows_of(context: Context) -> int:
    """The number of rows of a context that is not empty."""
    return len(next(iter(context.values())))


Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of a context's rows, by name."""


def largest(*contexts: Context) -> Shapes | None:
    """The sizes that the rows of all contexts fit into; None if theirs are equal.

    Raises:
        InvMMError: Tensors of the same name have different numbers of dimensions.
    """
    shapes = [{name: tuple(tensor.shape[1:]) for name, tensor in context.items()} for context in contexts]
    if all(shape == shapes[0] for shape in shapes):
        return None
    if len({tuple((name, len(sizes)) for name, sizes in shape.items()) for shape in shapes}) > 1:
        raise InvMMError("The pipeline encodes two prompts as tensors of different kinds, which is not supported.")
    return {name: tuple(map(max, *(shape[name] for shape in shapes))) for name in shapes[0]}


def padded(context: Context, shapes: Shapes | None) -> Context:
    """A context with rows of these shapes, padded by zeros; :data:`SIZES` has those that they had."""
    if shapes is None:
        return context
    sizes = [size for tensor in context.values() for size in tensor.shape[1:]]
    found = {}
    for name, tensor in context.items():
        found[name] = tensor.new_zeros((len(tensor), *shapes[name]))
        found[name][tuple(slice(size) for size in tensor.shape)] = tensor
    device = next(iter(context.values())).device
    return {**found, SIZES: torch.tensor(sizes, device=device).expand(rows_of(context), -1)}


def groups(context: Context) -> list[tuple[Tensor | None, Context]]:
    """The rows of a context by their own sizes: which they are (None for all), and the context without padding."""
    if SIZES not in context:
        return [(None, context)]
    names = [name for name in context if name != SIZES]
    kinds, kind_of = torch.unique(context[SIZES], dim=0, return_inverse=True)
    found: list[tuple[Tensor | None, Context]] = []
    for kind, sizes in enumerate(kinds.tolist()):
        index = (kind_of == kind).nonzero()[:, 0]
        remaining = iter(sizes)
        cut = {}
        for name in names:
            tensor = context[name][index]
            cut[name] = tensor[(slice(None), *(slice(next(remaining)) for _ in tensor.shape[1:]))]
        found.append((index, cut))
    return found


def _parts(tree: Any) -> list[tuple[int | str, Any]]:
    return list(tree.items()) if isinstance(tree, Mapping) else list(enumerate(tree))


def _tensors(tree: Any, path: Path) -> list[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        return [(_name(path), tree)]
    if isinstance(tree, list | tuple):
        return [found for key, part in _parts(tree) for found in _tensors(part, (*path, key))]
    raise InvMMError(f"An encoded prompt holds a {type(tree).__name__}, which is not supported.")


def _filled(tree: Any, tensors: Any) -> Any:
    if isinstance(tree, Tensor):
        return next(tensors)
    return type(tree)([_filled(part, tensors) for part in tree])


def _name(path: Path) -> str:
    return "prompt-" + "-".join(map(str, path))
