"""Text encoder and UNet, trained together from nothing; saved as a StableDiffusionPipeline folder."""

import json

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.training_utils import EMAModel, compute_snr
from garments import CLASSES, DERIVED, SIZE, TEMPLATES, WORLD, caption, load, pad, params, with_article
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from training import to_unit, train, warmup_cosine
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}


def make_tokenizer(length: int) -> CLIPTokenizer:
    """CLIP's tokenizer and vocabulary order, with byte-pair merges learned on the captions' own words."""
    names = [with_article(c["name"]) + ", " + c["definition"] for c in CLASSES]
    corpus = [template.format(f"{a} and {b}") for template in TEMPLATES for a in names for b in names]
    like_clip = CLIPTokenizer()
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = like_clip.backend_tokenizer.normalizer
    learner.pre_tokenizer = like_clip.backend_tokenizer.pre_tokenizer
    learner.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=800, end_of_word_suffix="</w>", show_progress=False)
    )
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [c + "</w>" for c in alphabet] + [a + b for a, b in merges]
    tokens += [like_clip.bos_token, like_clip.eos_token]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(dict.fromkeys(tokens))}, merges=merges, model_max_length=length
    )


def encode(vae: AutoencoderKL, pictures: np.ndarray) -> torch.Tensor:
    """Scaled latents, half precision (n, 2, 4, 8, 8): mean and standard deviation of the posterior."""
    moments = []
    with torch.inference_mode():
        for x in torch.from_numpy(pictures).split(256):
            posterior = vae.encode(to_unit(x).contiguous(memory_format=torch.channels_last)).latent_dist
            moments.append(torch.stack([posterior.mean, posterior.std], 1).half())
    return torch.cat(moments).clone() * vae.config.scaling_factor


def main() -> None:
    p = params("generator")
    torch.manual_seed(0)
    vae = AutoencoderKL.from_pretrained(DERIVED / "vae").eval().to(memory_format=torch.channels_last)
    images, labels = load("generator")
    groups = np.load(DERIVED / "groups-generator.npz")
    singles, groups_latents = encode(vae, pad(images)), encode(vae, groups["images"])
    members = [row[row >= 0].tolist() for row in groups["classes"]]

    tokenizer = make_tokenizer(p["text_length"])
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=p["text_width"],
            intermediate_size=4 * p["text_width"],
            projection_dim=p["text_width"],
            num_hidden_layers=p["text_layers"],
            num_attention_heads=4,
            max_position_embeddings=p["text_length"],
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=SIZE // 4,
        block_out_channels=p["channels"],
        layers_per_block=1,
        cross_attention_dim=p["text_width"],
        attention_head_dim=4,
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
    ).to(memory_format=torch.channels_last)
    network = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}).train()
    weights = list(network.parameters())
    ema = EMAModel(weights, decay=p["ema"])
    optimizer = torch.optim.AdamW(weights, p["learning_rate"], weight_decay=0.01)
    schedule = warmup_cosine(optimizer, p["steps"], p["warmup"])
    noise_schedule = DDPMScheduler(**NOISE)

    def step(i: int) -> torch.Tensor:
        rng = np.random.default_rng((p["steps"], i))
        captions, moments = [], []
        for _ in range(p["batch_size"]):
            if rng.random() < p["group_share"]:
                n = rng.integers(len(members))
                classes, source = members[n], groups_latents
            else:
                n = rng.integers(len(singles))
                classes, source = [int(labels[n])], singles
            captions.append("" if rng.random() < p["empty_share"] else caption(classes, rng, p["definition_share"]))
            moments.append(source[n])
        mean, std = torch.stack(moments).float().unbind(1)
        latents = mean + std * torch.randn_like(mean)
        ids = tokenizer(
            captions, padding="max_length", max_length=p["text_length"], truncation=True, return_tensors="pt"
        ).input_ids
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, NOISE["num_train_timesteps"], (len(latents),))
        noisy = noise_schedule.add_noise(latents, noise, timesteps).contiguous(memory_format=torch.channels_last)
        predicted = unet(noisy, timesteps, text_encoder(ids).last_hidden_state).sample
        snr = compute_snr(noise_schedule, timesteps)
        weight = snr.clamp(max=p["snr_gamma"]) / snr
        loss = (weight * (predicted - noise).square().mean((1, 2, 3))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        ema.step(weights)
        return loss.detach()

    state = {"network": network, "optimizer": optimizer, "schedule": schedule, "ema": ema}
    train("generator", p, p["steps"], state, step)
    ema.copy_to(weights)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=DPMSolverMultistepScheduler(**NOISE, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(WORLD / "generator")  # half the bytes in git; loaded as float32


if __name__ == "__main__":
    main()
