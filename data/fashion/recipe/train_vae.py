"""The autoencoder of the generator: 32x32 pictures <-> 4x8x8 latents."""

import numpy as np
import torch
from diffusers import AutoencoderKL
from garments import DERIVED, SIZE, load, pad, params
from training import to_unit, train, warmup_cosine


def main() -> None:
    p = params("vae")
    torch.manual_seed(0)
    pictures = torch.from_numpy(
        np.concatenate([pad(load("generator")[0]), np.load(DERIVED / "groups-generator.npz")["images"]])
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=p["channels"],
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE,
    ).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), p["learning_rate"])
    schedule = warmup_cosine(optimizer, p["steps"], 50)

    def step(_: int) -> torch.Tensor:
        x = to_unit(pictures[torch.randint(len(pictures), (p["batch_size"],))])
        posterior = vae.encode(x.contiguous(memory_format=torch.channels_last)).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = (decoded - x).abs().mean() + p["kl_weight"] * kl
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        return loss.detach()

    train("vae", p, p["steps"], {"vae": vae, "optimizer": optimizer, "schedule": schedule}, step)
    vae.eval()
    with torch.inference_mode():
        sample = to_unit(pictures[torch.randint(len(pictures), (1024,))])
        posterior = torch.cat([vae.encode(x).latent_dist.mean for x in sample.split(128)])
        error = (vae.decode(posterior[:256]).sample - sample[:256]).abs().mean() * 127.5
    # As in Stable Diffusion, latents are scaled to unit variance for the UNet.
    vae.register_to_config(scaling_factor=round(1 / posterior.std().item(), 5))
    vae.save_pretrained(DERIVED / "vae")
    print(f"mean absolute error {error:.2f} of 255, scaling factor {vae.config.scaling_factor}")


if __name__ == "__main__":
    main()
