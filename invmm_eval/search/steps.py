"""The gradient of one step of several searches.

loss = mean |x0_hat(alpha_t x_0 + sigma_t n, t) - x_0|^2  +  lambda * KL(q || N(0, I)) / D
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import join, rows
from invmm_eval.models.schedule import broadcast
from invmm_eval.search.memory import MicroBatch
from invmm_eval.search.sampling import chunks, verified
from invmm_eval.search.search import Draw


def backward(backbone: Backbone, micro_batch: MicroBatch, draws: Sequence[Draw]) -> list[Tensor]:
    """Compute the gradients of the loss in the parameters of each search.

    Gradients pass the network at most ``micro_batch`` rows at a time and go to its inputs alone.

    Args:
        backbone: The model.
        micro_batch: Maximum number of rows of a network call.
        draws: One per search.

    Returns:
        The reconstruction loss of each search, a scalar tensor on its device.

    Raises:
        InvMMError: The backbone's estimates have no gradient or the wrong shape, or memory runs out for a single row.
    """
    n = torch.cat([draw.noise for draw in draws])
    t = torch.cat([draw.t for draw in draws])
    context = join([draw.context for draw in draws])
    x_0 = torch.cat([draw.search.x_0.expand(len(draw.noise), *draw.search.x_0.shape[1:]) for draw in draws])
    searched = [name for name, tensor in context.items() if tensor.requires_grad]
    inputs = [n, *(context[name] for name in searched)]
    # Scaled up on its way through the network, so that half precision does not lose the gradient of a mean over many
    # dimensions; a power of two is exact.
    scale = 1 << (n[0].numel() - 1).bit_length()
    while True:
        with micro_batch as size:
            parts = []
            for cut in chunks(len(n), size):
                leaves = [tensor[cut].detach().requires_grad_() for tensor in inputs]
                contexts = {**rows(context, cut), **dict(zip(searched, leaves[1:], strict=True))}
                alpha_t, sigma_t = (broadcast(level, n) for level in backbone.schedule(t[cut]))
                x_t = alpha_t * x_0[cut] + sigma_t * leaves[0]
                x0_hat = verified(backbone.predict_x0(x_t, t[cut], contexts), x_t)
                if not x0_hat.requires_grad:
                    raise InvMMError("The backbone's predict_x0 lets no gradient through to x_t; remove its no_grad.")
                losses = (x0_hat - x_0[cut]).square().flatten(1).mean(dim=1)
                received = torch.autograd.grad(scale * losses.sum(), leaves, materialize_grads=True)
                parts.append((losses.detach(), *received))
            break
    losses, *gradients = (torch.cat(part) for part in zip(*parts, strict=True))
    searches = [draw.search for draw in draws]
    for search in searches:
        for parameter in (*search.noise.parameters().values(), *search.condition.parameters().values()):
            parameter.grad = None
    kl = [search.noise.kl() for search in searches]
    weights = [torch.full_like(its, search.optimizer.weight) for its, search in zip(kl, searches, strict=True)]
    count = len(n) // len(draws)
    torch.autograd.backward([*kl, *inputs], [*weights, *(gradient / (scale * count) for gradient in gradients)])
    return list(losses.view(len(draws), count).mean(dim=1))
