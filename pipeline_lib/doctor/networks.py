"""A network: that it fits its classes, is right about labelled images, and can be quantized."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from pipeline_lib.doctor.costs import Costs
from pipeline_lib.doctor.findings import Finding
from pipeline_lib.evaluation.labelled import Labelled, sample
from pipeline_lib.evaluation.metrics import accuracy_metrics, doubt_of_guessing
from pipeline_lib.evaluation.predict import predict
from pipeline_lib.models.card import check_class_count
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.device import place, resolve_device
from pipeline_lib.params.everything import Params
from pipeline_lib.prompts.vocabulary import ClassName
from pipeline_lib.quantization.families import family_of
from pipeline_lib.quantization.prepare import check_quantizable
from pipeline_lib.quantization.scheme import make_scheme

JUDGED = 64  # labelled images, at most


def examine_network(
    folder: Path,
    classes: Sequence[ClassName],
    labelled: Sequence[Labelled],
    params: Params,
    costs: Costs,
) -> Iterator[Finding]:
    """A forward pass, the quantized form, and top-1 on a few labelled images.

    Args:
        folder: of the classifier.
        classes: in the order of the network's outputs; none where they are not known.
        labelled: images to judge by, or none.
        params: the whole of params.yaml.
        costs: gets what the network's steps take.

    Raises:
        InputError: its weights, classes or preprocessing are wrong, or it cannot be quantized.
    """
    loaded = load_classifier(folder)
    if classes:
        check_class_count(folder, len(classes))
    config = loaded.data_config
    family = family_of(loaded.network)
    method = family.choose_method(params.reconstruct, params.methods)
    for name in params.axes.precisions:
        scheme = partial(
            make_scheme, precision=params.precisions[name], softmax=params.reconstruct.softmax, method=method
        )
        check_quantizable(loaded.network, config["input_size"], scheme)
    size = "x".join(map(str, config["input_size"][1:]))
    mean, std = ([round(value, 3) for value in config[key]] for key in ("mean", "std"))
    expects = f"images of {size}, {config['interpolation']}, crop_pct {config['crop_pct']}, mean {mean}, std {std}"
    yield Finding("OK", folder.name, f"{expects}; reconstructed as `{family.name}` networks are")
    if labelled:
        device = resolve_device(params.runtime)
        network, images = place(loaded.network, device), [labelled[position] for position in sample(labelled, JUDGED)]
        began = time.monotonic()
        predictions = predict({"float": network}, config, images, params.evaluate.batch_size, device)
        costs.add_network(params, method, config["input_size"], (time.monotonic() - began) / len(images))
        metrics = accuracy_metrics(predictions.labels, predictions.classes["float"], params.evaluate.confidence)
        text = f"float top-1 {metrics['top1']:.1f}% of {len(images)} labelled images, drawn by key"
        doubt = doubt_of_guessing(metrics, len(classes))
        yield Finding("WARN" if doubt else "OK", folder.name, text + doubt)
