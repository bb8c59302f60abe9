"""Other detectors of memorization and membership, each as its paper defines it, for any backbone of ``invmm_eval``.

A detector takes a backbone and images, float32 ``(n, C, H, W)`` in [0, 1], and gives one score an image: the larger,
the more it takes the image for a member, or for memorized. What it spends is counted by
:class:`~benchmarks.baselines.counting.Counted`.
"""
