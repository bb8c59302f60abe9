"""Watch the training of a LoRA, and stop it when it gives its training pictures back.

A LoRA of a small Stable Diffusion is trained on two pictures with captions. Every 20 steps the watch searches the more
suspicious one and a canary that is in no training set, in the model with the LoRA as it is then. It stops the training
when one of them is memorized. Each checkpoint is a LoRA that diffusers and `invmm-eval run --lora` read.

    python examples/watch_lora.py
"""

from pathlib import Path

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict

from invmm_eval import Source
from invmm_eval.integrations.watch import Watch
from invmm_eval.reference import pictures

MODEL = Path(__file__).parents[1] / "tests" / "data" / "stable-diffusion"
LAYERS = ["to_k", "to_q", "to_v", "to_out.0", "conv1", "conv2", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
RANK = 32
BATCH = 16
CHECK_EVERY = 20
MAX_STEPS = 200


def main() -> None:
    """Train a LoRA until a picture is memorized."""
    torch.manual_seed(0)
    pipeline = StableDiffusionPipeline.from_pretrained(MODEL, dtype=torch.float32)
    unet = pipeline.unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=LAYERS))
    weights = [parameter for parameter in unet.parameters() if parameter.requires_grad]

    new = [picture for picture in pictures() if picture.copies == 0][:3]
    *training, canary = [Source(picture.name, picture.image.resize((16, 16)), picture.name) for picture in new]
    watch = Watch(
        [canary],
        training=training,
        suspects=1,
        every=CHECK_EVERY,
        out="watch",
        log=lambda scalars, step: print(f"step {step}: {scalars}"),
        similarity="pixel-cosine",
        backbone_options={"prompt_mode": "caption"},
        settings={"threshold": 0.8, "guidance": (1.0,)},
    )

    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    with torch.no_grad():
        pixels = pipeline.image_processor.preprocess([source.value for source in training])
        x_0 = pipeline.vae.encode(pixels).latent_dist.mode() * pipeline.vae.config.scaling_factor
        hidden, _ = pipeline.encode_prompt([source.caption for source in training], torch.device("cpu"), 1, False)
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    for step in range(1, MAX_STEPS + 1):
        index = torch.randint(len(x_0), (BATCH,))
        noise = torch.randn(BATCH, *x_0.shape[1:])
        t = torch.randint(scheduler.config.num_train_timesteps, (BATCH,))
        x_t = scheduler.add_noise(x_0[index], noise, t)
        predicted = unet(x_t, t, encoder_hidden_states=hidden[index]).sample
        loss = (predicted - noise).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if step % CHECK_EVERY == 0:
            pipeline.save_lora_weights(f"checkpoint-{step}", unet_lora_layers=get_peft_model_state_dict(unet))
        if watch(step, pipeline):
            for result in watch.checks[-1].memorized:
                print(f"Stopped at step {step}: {result.words}")
            print(f"The last checkpoint without a memorized picture: checkpoint-{watch.last_clean}")
            return
    print(f"No picture was memorized in {MAX_STEPS} steps.")


if __name__ == "__main__":
    main()
