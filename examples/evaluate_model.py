"""An evaluation script: has a model memorized the images that must not come back?

It measures these images and, for comparison, images that the model was not trained on. It writes all figures to a JSON
file. The exit code is 1 if an image was replicated, so that it can block a release.

    python examples/evaluate_model.py --model my-model --images pictures --held-out others --out invmm.json
"""

import argparse

import evaluate

import invmm_eval


def main() -> int:
    """Evaluate one model and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder written by save_pretrained, or Hub id")
    parser.add_argument("--images", required=True, help="folder, or dataset:NAME[:split[:column]]")
    parser.add_argument("--held-out", required=True, help="images that the model was not trained on, in the same form")
    parser.add_argument("--out", required=True, help="output file")
    parser.add_argument("--recipe", default="paper", help="paper, dose or demo")
    parser.add_argument("--max-steps", type=int, help="maximum number of steps per image")
    chosen = parser.parse_args()

    metric = evaluate.load(invmm_eval.metric_path())
    how = {"model": chosen.model, "recipe": chosen.recipe, "max_steps": chosen.max_steps, "seed": 0}
    images = metric.compute(references=chosen.images, **how)
    held_out = metric.compute(references=chosen.held_out, **how)
    evaluate.save(chosen.out, experiment="invmm", **how, images=images, held_out=held_out)

    for name, found in (("images", images), ("held-out images", held_out)):
        print(f"{found['replicated']} of {found['images']} {name} were replicated; {found['failed']} failed.")
    if held_out["replicated"]:
        print("Held-out images count as replicated: raise the threshold of the similarity.")
    return 1 if images["replicated"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
