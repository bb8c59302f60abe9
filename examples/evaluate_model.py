"""An evaluation script: has a model memorized the images that must not come back?

It measures these images and, for comparison, images that the model was not trained on. It writes all values to a JSON
file. The exit code is 1 if an image is memorized or could not be measured, so that it can block a release.

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
    chosen = parser.parse_args()

    metric = evaluate.load(invmm_eval.metric_path())
    images = metric.compute(references=chosen.images, model=chosen.model)
    held_out = metric.compute(references=chosen.held_out, model=chosen.model)
    evaluate.save(chosen.out, experiment="invmm", model=chosen.model, images=images, held_out=held_out)

    for name, found in (("images", images), ("held-out images", held_out)):
        print(f"{found['memorized']} of {found['images']} {name} are memorized; {found['failed']} failed.")
    if held_out["memorized"]:
        print("Held-out images count as memorized: raise the threshold of the similarity.")
    return 1 if images["memorized"] or images["failed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
