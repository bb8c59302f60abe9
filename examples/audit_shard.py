# /// script
# requires-python = ">=3.11"
# dependencies = ["invmm-eval"]
# ///
"""One shard of an audit as a job of its own, for ``uv run`` and the Jobs of the Hub.

    hf jobs uv run --flavor a10g-small --timeout 24h --secrets HF_TOKEN -v hf://buckets/ORG/BUCKET:/audit \
      examples/audit_shard.py 3/64 /audit --model ORG/MODEL --images dataset:ORG/IMAGES

The first argument is the shard, the second the folder that all shards share, here a bucket; the others are those of
``invmm-eval run``. A job that was ended resumes when it is started again.
"""

import sys
from pathlib import Path

from invmm_eval.cli import main

if __name__ == "__main__":
    shard, folder, *options = sys.argv[1:]
    out = Path(folder, f"shard-{shard.partition('/')[0]}")
    out.parent.mkdir(parents=True, exist_ok=True)
    sys.argv = ["invmm-eval", "run", "--shard", shard, "--out", str(out), *options]
    main()
