"""How well the generator draws what it is told, judged by networks it never met."""

import itertools
import json
from pathlib import Path

import numpy as np
import torch
from augment import resize
from diffusers import StableDiffusionPipeline
from garments import CLASSES, DERIVED, HERE, WORLD, compose_groups, load, params, with_article
from PIL import Image
from safetensors.torch import load_file
from train_judge import SIZE, make_judge

from pipeline_lib.models.classifier import load_classifier

BATCH = 50


def render(pipeline: StableDiffusionPipeline, prompts: list[str], p: dict) -> torch.Tensor:
    """uint8 (n, 32, 32), one seed a prompt."""
    pictures = []
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        seeds = [torch.Generator().manual_seed(start + i) for i in range(len(batch))]
        images = pipeline(
            batch,
            num_inference_steps=p["steps"],
            guidance_scale=p["guidance_scale"],
            generator=seeds,
            height=32,
            width=32,
        ).images
        pictures += [np.asarray(image.convert("L")) for image in images]
    return torch.from_numpy(np.stack(pictures))


def found_both(judge: torch.nn.Module, pictures: torch.Tensor, pairs: list[tuple[int, int]]) -> float:
    """Share of pictures in which the judge's two likeliest garments are the two that were named."""
    top2 = judge(resize(pictures, SIZE)).topk(2).indices.tolist()
    return sum(set(top) == set(pair) for top, pair in zip(top2, pairs, strict=True)) / len(pairs)


def contact_sheet(rows: list[torch.Tensor], path: Path) -> None:
    sheet = np.concatenate([np.concatenate(list(row.numpy()), axis=1) for row in rows])
    Image.fromarray(sheet).resize((sheet.shape[1] * 2, sheet.shape[0] * 2), Image.Resampling.NEAREST).save(path)


@torch.inference_mode()
def main() -> None:
    p = params("quality")
    pipeline = StableDiffusionPipeline.from_pretrained(WORLD / "generator", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    names = [with_article(c["name"]) for c in CLASSES]
    labels = np.repeat(np.arange(len(names)), p["images_per_class"])
    singles = render(pipeline, [f"a photo of {names[c]}" for c in labels], p)
    classifier = load_classifier(WORLD / "classifiers" / "clean" / "resnet")
    size = classifier.data_config["input_size"][1]
    predicted = torch.cat([classifier.network(resize(x, size)).argmax(1) for x in singles.split(200)]).numpy()

    judge = make_judge().eval()
    judge.load_state_dict(load_file(DERIVED / "judge.safetensors"))
    every = list(itertools.combinations(range(len(names)), 2))
    pairs = [every[i % len(every)] for i in range(p["pairs"])]
    doubles = render(pipeline, [f"a photo of {names[a]} and {names[b]}" for a, b in pairs], p)
    test, members = compose_groups(*load("test"), 2000, 99)
    two = members[:, 2] < 0
    quality = {
        "single_recognised": round(100 * float((predicted == labels).mean()), 1),
        "single_recognised_by_class": {
            CLASSES[c]["name"]: round(100 * float((predicted[labels == c] == c).mean()), 1) for c in range(len(names))
        },
        "pairs_both_found": round(100 * found_both(judge, doubles, pairs), 1),
        "pairs_both_found_in_composed_test_images": round(
            100 * found_both(judge, torch.from_numpy(test[two]), [tuple(m[:2]) for m in members[two].tolist()]), 1
        ),
    }
    (HERE / "quality.json").write_text(json.dumps(quality, indent=2) + "\n")
    contact_sheet(
        [singles[labels == c][:16] for c in range(len(names))] + list(doubles[:64].split(16)),
        HERE / "contact-sheet.png",
    )
    print(json.dumps(quality, indent=2))


if __name__ == "__main__":
    main()
