"""What torchrun tells the processes that it starts. This module does not import torch."""

import os


def launched() -> tuple[int, bool]:
    """The number of processes that torchrun, or a launcher like it, started, and whether this is rank 0."""
    return int(os.environ.get("WORLD_SIZE", "1")), os.environ.get("RANK", "0") == "0"
