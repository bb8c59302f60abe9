"""An evaluation script: has a model memorized the images that must not come back?

It measures those images and, for comparison, images the model cannot know. It writes all figures to a JSON file and
ends with exit code 1 where an image was replicated, so that a release can be made to wait for it.

    python examples/evaluate_model.py --model my-model --images pictures --held-out others --out invmm.json
"""

import argparse

import evaluate

import invmm_eval


def main() -> int:
    """Evaluate one model; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder that save_pretrained wrote, or a Hub id")
    parser.add_argument("--images", required=True, help="a folder, or dataset:NAME[:split[:column]]")
    parser.add_argument("--held-out", required=True, help="images that the model was not trained on, likewise")
    parser.add_argument("--out", required=True, help="where the figures go")
    parser.add_argument("--recipe", default="paper", help="paper or demo")
    parser.add_argument("--max-steps", type=int, help="steps after which an image counts as not replicated")
    chosen = parser.parse_args()

    metric = evaluate.load(invmm_eval.metric_path())
    how = {"model": chosen.model, "recipe": chosen.recipe, "max_steps": chosen.max_steps, "seed": 0}
    images = metric.compute(references=chosen.images, **how)
    held_out = metric.compute(references=chosen.held_out, **how)
    evaluate.save(chosen.out, experiment="invmm", **how, images=images, held_out=held_out)

    for name, found in (("images", images), ("held-out images", held_out)):
        print(f"{found['replicated']} of {found['images']} {name} were replicated; {found['failed']} failed.")
    if held_out["replicated"]:
        print("Images the model cannot know count as replicated: raise the similarity's threshold.")
    return 1 if images["replicated"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
