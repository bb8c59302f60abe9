"""One audit on many processes: actors of Ray, or the ranks that torchrun started.

One process, the driver, reads the images, hands each to the next free worker, and alone writes results. A worker makes
its own plan and measures what it receives. An image's result does not depend on the images measured with it, so it does
not depend on its worker either.

    driver  -- target per image -->  worker: plan.measure  -- result per image -->  driver
"""

from invmm_eval.audits.workers.on_ray import actors as actors
from invmm_eval.audits.workers.on_torchrun import ranks as ranks
