"""How alike classes are to the generator's text encoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline_lib.artifacts.hub import locate
from pipeline_lib.errors import one_line, refusing

Similarities = npt.NDArray[np.float64]


def text_similarities(generator: Path, texts: Sequence[str]) -> Similarities:
    """Cosine similarities (n, n) of the pooled CLIP embeddings of texts, centred on their mean.

    Captions of one form have nearly the same embedding; without their mean, what is left is what tells them apart.

    Raises:
        InputError: the folder holds no generator, or one without a CLIP text encoder.
    """
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source, revision = locate(generator)
    needs = f"{generator}: recipes with `pairs: similar` or `dissimilar` need its CLIP text encoder"
    with refusing(lambda error: f"{needs}: {one_line(error)}"):
        tokenizer = CLIPTokenizer.from_pretrained(source, subfolder="tokenizer", revision=revision or "main")
        encoder = CLIPTextModel.from_pretrained(source, subfolder="text_encoder", revision=revision or "main")
    tokens = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
    with torch.inference_mode():
        pooled = encoder(tokens.input_ids).pooler_output.double()
    unit = torch.nn.functional.normalize(pooled - pooled.mean(0), dim=1)
    return (unit @ unit.T).numpy()
