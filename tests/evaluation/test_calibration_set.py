"""What is said of a calibration set, on sets whose answer is known."""

import numpy as np
import pytest

from pipeline_lib.evaluation.calibration_set import DISTANCES, class_facts, named_accuracy, set_facts
from pipeline_lib.evaluation.distances import diversity, kernel_distance, manifold_metrics
from pipeline_lib.evaluation.features import Responses, responses
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.normalise import Normaliser
from tests.conftest import ROOT


def normal(n: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 8)) * scale + shift


def test_two_samples_of_one_distribution_are_no_distance_apart() -> None:
    same = [kernel_distance(normal(200, seed), normal(300, seed + 100)) for seed in range(20)]
    spread = np.std(same)
    assert abs(np.mean(same)) < 3 * spread / 20**0.5, "unbiased"
    assert kernel_distance(normal(200, 0), normal(300, 1, shift=0.5)) > 10 * spread
    metrics = manifold_metrics(normal(300, 0), normal(300, 1))
    assert metrics["precision"] > 0.8 and metrics["recall"] > 0.8 and metrics["coverage"] > 0.8
    assert metrics["density"] == pytest.approx(1, abs=0.15)


def test_manifold_metrics_tell_missing_variety_from_missing_quality() -> None:
    real = normal(300, 1)
    narrow, wide, far = normal(300, 0, scale=0.3), normal(300, 0, scale=3), normal(300, 0, shift=9)
    assert manifold_metrics(narrow, real)["precision"] > 0.95 > 0.5 > manifold_metrics(narrow, real)["recall"]
    assert manifold_metrics(wide, real)["recall"] > 0.95 > 0.5 > manifold_metrics(wide, real)["precision"]
    assert set(manifold_metrics(far, real).values()) == {0}


def test_diversity_counts_distinct_images() -> None:
    assert diversity(np.eye(7)) == pytest.approx(7)
    assert diversity(np.repeat(np.eye(7)[:3], 5, 0)) == pytest.approx(3)
    assert diversity(np.ones((4, 9))) == pytest.approx(1)


def test_recognition() -> None:
    ranking = np.array([[0, 1, 2], [0, 1, 2], [2, 1, 0], [1, 0, 2]] * 2)
    seen, labelled = Responses(normal(8, 0), ranking), Responses(normal(9, 1), ranking)
    facts = set_facts(seen, [(0,), (0, 2), (0,), (1, 0)] * 2, labelled)
    assert facts["recognised"] == 100 * (1 + 0.5 + 0 + 1) / 4
    assert set_facts(seen, [()] * 8, labelled)["recognised"] is None
    assert named_accuracy(ranking[:4, 0], [(0,), (1, 2), (2, 0), ()]) == pytest.approx(200 / 3)
    assert named_accuracy(ranking[:4, 0], [()] * 4) is None


def test_classes_are_compared_with_their_own() -> None:
    features = np.concatenate([normal(20, 0), normal(20, 1, shift=5)])
    labels = np.repeat([0, 1], 20)
    ranking = np.stack([labels, 1 - labels], 1)
    labelled = Responses(np.concatenate([normal(30, 2), normal(30, 3, shift=5)]), np.zeros((60, 2), np.int64))
    of_labels = np.repeat([0, 1], 30)
    right = class_facts(Responses(features, ranking), [(c,) for c in labels], labelled, of_labels)
    wrong = class_facts(Responses(features, ranking), [(1 - c,) for c in labels], labelled, of_labels)
    assert [right[c]["recognised"] for c in (0, 1)] == [100, 100]
    assert [wrong[c]["recognised"] for c in (0, 1)] == [0, 0]
    for c in (0, 1):
        assert abs(right[c]["kernel_distance"]) < 0.01 * wrong[c]["kernel_distance"]
    assert class_facts(Responses(features, ranking), [()] * 40, labelled, of_labels) == {}


@pytest.mark.parametrize("model", ["resnet", "mobilenet", "vit"])
def test_features_are_what_the_head_reads(model: str) -> None:
    classifier = load_classifier(ROOT / "data/fashion/classifiers/scenes" / model)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    normalise = Normaliser(classifier.data_config, classifier.network.parameters().__next__().device)
    seen = responses(classifier.network, [pixels[:4], pixels[4:]], normalise)
    logits = classifier.network(normalise(pixels))
    assert np.array_equal(seen.ranking, logits.argsort(1, descending=True).numpy())
    assert seen.features.shape[0] == 6
    head = classifier.network.get_classifier()
    assert np.allclose(seen.features @ head.weight.double().numpy().T + head.bias.numpy(), logits.numpy(), atol=1e-4)


def test_too_few_images_have_no_distances() -> None:
    few = Responses(np.eye(5), np.zeros((5, 5), int))
    facts = set_facts(few, [()] * 5, Responses(np.ones((9, 5)), np.zeros((9, 5), int)))
    assert [name for name, value in facts.items() if value is None] == [*DISTANCES, "recognised"]
