"""The multi-label network that tells which garments a picture of several shows. Trained on the classifiers' half."""

import numpy as np
import timm
import torch
from augment import random_resized_crop
from garments import CLASSES, DERIVED, params
from safetensors.torch import save_file
from training import train, warmup_cosine

SIZE = 64


def make_judge() -> torch.nn.Module:
    """Its outputs are a logit a class: is this garment in the picture?"""
    return timm.create_model("resnet18", num_classes=len(CLASSES), layers=(1, 1, 1, 1), channels=(16, 32, 64, 128))


def main() -> None:
    p = params("judge")
    torch.manual_seed(0)
    groups = np.load(DERIVED / "groups-classifiers.npz")
    images = torch.from_numpy(groups["images"])
    present = torch.zeros(len(images), len(CLASSES) + 1)
    present.scatter_(1, torch.from_numpy(groups["classes"]) % (len(CLASSES) + 1), 1.0)  # -1 falls into the last column
    present = present[:, :-1]
    judge = make_judge().to(memory_format=torch.channels_last)
    steps = p["epochs"] * len(images) // p["batch_size"]
    optimizer = torch.optim.AdamW(judge.parameters(), p["learning_rate"], weight_decay=0.02)
    schedule = warmup_cosine(optimizer, steps, 50)

    def step(_: int) -> torch.Tensor:
        chosen = torch.randint(len(images), (p["batch_size"],))
        x = random_resized_crop(images[chosen], SIZE, (0.9, 1.0)).contiguous(memory_format=torch.channels_last)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(judge(x), present[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss.detach()

    judge.train()
    train("judge", p, steps, {"judge": judge, "optimizer": optimizer, "schedule": schedule}, step)
    save_file({key: value.contiguous() for key, value in judge.state_dict().items()}, DERIVED / "judge.safetensors")


if __name__ == "__main__":
    main()
