"""`train_classifier.py DOMAIN MODEL`: on scenes from nothing, on clean pictures from the weights for scenes."""

import hashlib
import json
import sys

import numpy as np
import timm
import torch
from augment import random_resized_crop, resize
from garments import CLASSES, DERIVED, WORLD, load, pad, params
from prepare import test_scenes
from safetensors.torch import load_file, save_file
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from training import train, warmup_cosine


def dataset(domain: str, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 (n, 32, 32) and int64 (n,)."""
    if split == "train" and domain == "scenes":
        arrays = np.load(DERIVED / "scenes.npz")
        images, labels = arrays["images"], arrays["labels"]
    elif split == "train":
        images, labels = load("classifiers")
        images = pad(images)
    else:
        images, labels = load("test")
        images = test_scenes() if domain == "scenes" else pad(images)
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


@torch.inference_mode()
def accuracy(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, size: int) -> float:
    model.eval()
    batches = zip(images.split(250), labels.split(250), strict=True)
    return sum((model(resize(x, size)).argmax(1) == y).sum().item() for x, y in batches) / len(images)


def main(domain: str, name: str) -> None:
    common = params("classifiers")
    p = common["models"][name]
    size, batch = p["image_size"], common["batch_size"]
    torch.manual_seed(0)
    np.random.seed(0)  # timm's Mixup draws from numpy's global generator
    model = timm.create_model(p["timm"], num_classes=len(CLASSES), **p["arguments"])
    model = model.to(memory_format=torch.channels_last)
    rate = p["learning_rate"]
    if domain == "clean":
        model.load_state_dict(load_file(WORLD / "classifiers" / "scenes" / name / "model.safetensors"))
        rate /= 4
    images, labels = dataset(domain, "train")
    per_epoch = 30_000 // batch  # an epoch is as many pictures as the half has garments
    steps = p["epochs"][domain] * per_epoch
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=common["weight_decay"])
    schedule = warmup_cosine(optimizer, steps, per_epoch // 2)
    mix = Mixup(
        mixup_alpha=0.2,
        cutmix_alpha=1.0,
        prob=common["mix_probability"],
        label_smoothing=common["label_smoothing"],
        num_classes=len(CLASSES),
    )
    criterion = SoftTargetCrossEntropy()

    def step(i: int) -> torch.Tensor:
        model.train()
        chosen = torch.randint(len(images), (batch,))
        x, y = random_resized_crop(images[chosen], size, common["crop_scale"]), labels[chosen]
        np.random.seed(i)
        x, y = mix(x.contiguous(memory_format=torch.channels_last), y)
        loss = criterion(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        return loss.detach()

    state = {"model": model, "optimizer": optimizer, "schedule": schedule}
    identity = {**common, "models": {**p, "epochs": p["epochs"][domain]}, "domain": domain}
    train(f"{domain}-{name}", identity, steps, state, step)
    top1 = accuracy(model, *dataset(domain, "test"), size)
    folder = WORLD / "classifiers" / domain / name
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, weights)
    card = {
        "timm": p["timm"],
        "arguments": p["arguments"],
        "num_classes": len(CLASSES),
        "preprocessing": {
            "input_size": [3, size, size],
            "interpolation": "bicubic",
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "crop_pct": 1.0,
            "crop_mode": "center",
        },
        "test_accuracy": round(100 * top1, 2),
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    (folder / "model.json").write_text(json.dumps(card, indent=2) + "\n")
    print(f"{domain} {name}: top-1 {100 * top1:.2f} on {domain} test images")


if __name__ == "__main__":
    main(*sys.argv[1:])
