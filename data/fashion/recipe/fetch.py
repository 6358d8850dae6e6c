"""The four original files of Fashion-MNIST, checked, into raw/."""

import gzip
import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from garments import RAW, params

# Of the decompressed bytes: distributions compress the originals anew.
SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def main() -> None:
    source = Path(params("data")["source"])
    with tempfile.TemporaryDirectory() as scratch:
        if not source.is_dir():
            from torchvision.datasets import FashionMNIST

            FashionMNIST(scratch, download=True)
            source = Path(scratch) / "FashionMNIST" / "raw"
        RAW.mkdir(exist_ok=True)
        for name, expected in SHA256.items():
            found = hashlib.sha256(gzip.decompress((source / name).read_bytes())).hexdigest()
            if found != expected:
                sys.exit(f"{source / name}: expected content with SHA-256 {expected}, found {found}")
            shutil.copyfile(source / name, RAW / name)


if __name__ == "__main__":
    main()
