"""The labelled test images and the real calibration images of both domains."""

import shutil

import numpy as np
from garments import DERIVED, RAW, WORLD, load, pad, write_idx
from PIL import Image
from prepare import test_scenes

from pipeline_lib.artifacts.files import atomic
from pipeline_lib.artifacts.shards import pack_shard

REAL_IMAGES = 1024
IMAGES, LABELS = "images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"


def main() -> None:
    test = WORLD / "test"
    for domain in ("clean", "scenes"):
        (test / domain).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(RAW / f"t10k-{LABELS}", test / domain / LABELS)
    shutil.copyfile(RAW / f"t10k-{IMAGES}", test / "clean" / IMAGES)
    write_idx(test / "scenes" / IMAGES, test_scenes())

    images, labels = load("classifiers")
    scenes = np.load(DERIVED / "scenes.npz")["images"]  # the first variant of each image comes first
    for domain, pictures in (("clean", pad(images)), ("scenes", scenes)):
        samples = (
            (Image.fromarray(picture), {"key": f"real-{number:06d}", "classes": [int(label)]})
            for number, (picture, label) in enumerate(zip(pictures[:REAL_IMAGES], labels[:REAL_IMAGES], strict=True))
        )
        with atomic(WORLD / "real" / f"{domain}.tar") as path:
            path.write_bytes(pack_shard(samples))


if __name__ == "__main__":
    main()
