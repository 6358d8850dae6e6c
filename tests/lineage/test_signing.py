"""A signature of a checkpoint on a finished pipeline: it holds, and does not where anything was replaced since."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from typer.testing import CliRunner

from pipeline_lib.__main__ import app
from pipeline_lib.artifacts.files import dvc_digest, sha256
from pipeline_lib.artifacts.records import read_lines, write_lines
from pipeline_lib.artifacts.shards import pack_shard, read_records, read_shard
from tests.conftest import ROOT
from tests.pipeline.conftest import commit, run

CHECKPOINT, OTHER = "data/quantized/mixup-resnet-w2a4", "data/quantized/mixup-resnet-w4a4"
DATASET, RECORD = Path("data/synthetic/mixup"), Path("data/provenance/synthesize/mixup.json")
SIGNATURE = Path("data/signatures/mixup-resnet-w2a4.intoto.json")


def command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def write_key(folder: Path, private: Any, passphrase: bytes = b"") -> None:
    hidden = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    folder.mkdir()
    (folder / "private.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "public.pem").write_bytes(public)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outside of the repository, as a key should be."""
    folder = tmp_path_factory.mktemp("keys")
    write_key(folder / "ours", Ed25519PrivateKey.generate())
    write_key(folder / "theirs", Ed25519PrivateKey.generate())
    write_key(folder / "ecdsa", generate_private_key(SECP256R1()))
    write_key(folder / "locked", Ed25519PrivateKey.generate(), b"secret")
    return folder


@pytest.fixture(scope="module")
def signed(finished: Path, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with a signed checkpoint, to be copied."""
    clone = Path(shutil.copytree(finished, tmp_path_factory.mktemp("signed") / "repository", symlinks=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone)
        code, text = command("sign", CHECKPOINT, "--key", str(keys / "ours/private.pem"))
    assert code == 0, text
    assert f"real images upstream of {CHECKPOINT}: none" in text
    return clone


@pytest.fixture
def clone(signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    clone = Path(shutil.copytree(signed, tmp_path / "repository", symlinks=True))
    monkeypatch.chdir(clone)
    return clone


@pytest.fixture
def verify(clone: Path, keys: Path) -> Callable[..., tuple[int, str]]:
    def verify(checkpoint: str = CHECKPOINT, key: str = "ours/public.pem") -> tuple[int, str]:
        return command("verify", checkpoint, "--key", str(keys / key))

    return verify


def payload() -> dict[str, Any]:
    return json.loads(base64.b64decode(json.loads(SIGNATURE.read_text())["payload"]))


def writable(path: Path) -> Path:
    """The file, no longer shared with DVC's cache."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    return path


@pytest.mark.usefixtures("clone")
def test_the_statement_says_what_made_the_checkpoint() -> None:
    envelope, statement = json.loads(SIGNATURE.read_text()), payload()
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "urn:mixup-class-prompts:lineage:1"
    files = sorted(file for file in Path(CHECKPOINT).iterdir() if file.name != ".gitignore")
    assert {s["name"]: s["digest"]["sha256"] for s in statement["subject"]} == {str(f): sha256(f) for f in files}

    predicate = statement["predicate"]
    assert predicate["checkpoint"] == CHECKPOINT
    assert predicate["real_images"] == "none"
    assert {check["status"] for check in predicate["checks"]} == {"OK"}
    assert set(predicate["stages"]) == {
        "prompts@mixup",
        "synthesize@mixup",
        "calibrate@mixup-resnet",
        "reconstruct@mixup-resnet-w2a4",
    }
    lock = yaml.safe_load(Path("dvc.lock").read_text())["stages"]["synthesize@mixup"]
    assert predicate["stages"]["synthesize@mixup"] == {"lock": lock, "record": json.loads(RECORD.read_text())}
    artifacts = predicate["artifacts"]
    assert artifacts[str(DATASET)] == {
        "kind": "made",
        "sha256": {str(f): sha256(f) for f in DATASET.iterdir() if f.name != ".gitignore"},
    }
    assert artifacts["stages/synthesize.py"]["kind"] == "code"
    assert artifacts["world/generator"]["kind"] == "generator weights"
    assert artifacts["world/classifiers/resnet"]["kind"] == "classifier weights"
    assert artifacts["data/fashion/classes.csv"]["kind"] == "text"
    assert not [path for path in artifacts if path.startswith(("world/real", "world/test"))]


def test_an_untouched_pipeline_is_as_it_was_signed(verify: Callable[..., tuple[int, str]]) -> None:
    for name in (CHECKPOINT, f"{CHECKPOINT}/", "mixup-resnet-w2a4"):
        code, text = verify(name)
        assert code == 0, text
        assert f"real images upstream of {CHECKPOINT}, when it was signed: none" in text
        assert "all as they were signed" in text


def test_a_consistent_forgery_is_found(verify: Callable[..., tuple[int, str]], keys: Path) -> None:
    """A shard is replaced, and everything that names its digest is rewritten."""
    path = writable(DATASET / "000000.tar")
    turned = [(sample.image.rotate(180), sample.record) for sample in read_shard(path)]
    samples = [(image, {**r, "pixel_sha256": hashlib.sha256(image.tobytes()).hexdigest()}) for image, r in turned]
    path.write_bytes(pack_shard(samples))
    forged = {record["key"]: record for record in read_records(path)}
    index = writable(DATASET / "index.jsonl")
    rows = [(row, forged.get(row["key"], row)) for row in read_lines(index)]
    write_lines(index, [{key: new.get(key, value) for key, value in row.items()} for row, new in rows])
    digest = dvc_digest(DATASET)
    record = json.loads(RECORD.read_text())
    record["outs"][str(DATASET)] = digest
    writable(RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    readers = Path("data/provenance/calibrate/mixup-resnet.json")
    record = json.loads(readers.read_text())
    if str(DATASET) in record.get("inputs", {}):
        record["inputs"][str(DATASET)]["digest"] = digest
        writable(readers).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    run(Path(), "dvc", "commit", "-f", "synthesize@mixup", "calibrate@mixup-resnet")
    commit(Path(), "nothing happened")
    assert command("audit", CHECKPOINT)[0] == 0, "no trace of it is left in what the audit compares"

    code, text = verify()
    assert code == 1
    assert f"FAIL  {DATASET} (made): other bytes than were signed, in {DATASET}/000000.tar" in text
    assert f"FAIL  {RECORD} (made)" in text
    assert "FAIL  dvc.lock: the entry of synthesize@mixup is not the one that was signed" in text
    assert "none" not in text

    code, text = command("sign", CHECKPOINT, "--key", str(keys / "theirs/private.pem"))
    assert code == 0, "whoever forges can sign, but with another key"
    code, text = verify()
    assert code == 1 and "expected a signature of the key" in text


def an_edited_file(path: str) -> Callable[[], None]:
    def edit() -> None:
        writable(Path(path)).write_bytes(Path(path).read_bytes() + b"\n")

    return edit


def a_file_more() -> None:
    (DATASET / "000099.tar").write_bytes(b"")


def a_file_less() -> None:
    (DATASET / "000001.tar").unlink()


def nothing_left() -> None:
    shutil.rmtree(DATASET)


def an_edited_lock() -> None:
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    lock["stages"]["reconstruct@mixup-resnet-w2a4"]["params"]["params.yaml"]["reconstruct"]["seed"] = 5
    Path("dvc.lock").write_text(yaml.safe_dump(lock))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (an_edited_file(f"{CHECKPOINT}/model.safetensors"), f"{CHECKPOINT} (the checkpoint): other bytes"),
        (an_edited_file("world/generator/model_index.json"), "world/generator ("),
        (an_edited_file("world/classifiers/resnet/model.json"), "world/classifiers/resnet ("),
        (an_edited_file("stages/reconstruct.py"), "stages/reconstruct.py (code)"),
        (an_edited_file("data/prompts/mixup.jsonl"), "data/prompts/mixup.jsonl (made)"),
        (an_edited_file(str(RECORD)), f"{RECORD} (made)"),
        (a_file_more, f"{DATASET} (made): other bytes than were signed, in {DATASET}/000099.tar"),
        (a_file_less, f"{DATASET} (made): other bytes than were signed, in {DATASET}/000001.tar"),
        (nothing_left, f"{DATASET} (made): absent"),
        (an_edited_lock, "dvc.lock: the entry of reconstruct@mixup-resnet-w2a4"),
    ],
)
def test_what_changed_is_named(change: Callable[[], None], said: str, verify: Callable[..., tuple[int, str]]) -> None:
    change()
    code, text = verify()
    assert code == 1
    failures = [line for line in text.splitlines() if line.startswith("FAIL")]
    assert len(failures) == 1 and failures[0].startswith(f"FAIL  {said}"), text


def altered(envelope: dict[str, Any], change: str) -> dict[str, Any]:
    text = base64.b64decode(envelope["payload"])
    match change:
        case "verdict":
            return {**envelope, "payload": base64.b64encode(text.replace(b'"none"', b'"nil!"')).decode()}
        case "type":
            return {**envelope, "payloadType": "application/json"}
        case "signature":
            (signature,) = envelope["signatures"]
            bits = bytearray(base64.b64decode(signature["sig"]))
            bits[5] ^= 1
            return {**envelope, "signatures": [{**signature, "sig": base64.b64encode(bits).decode()}]}
        case "no signature":
            return {**envelope, "signatures": []}
    return {"payload": 3}


@pytest.mark.parametrize("change", ["verdict", "type", "signature", "no signature", "no envelope"])
def test_an_altered_envelope(change: str, verify: Callable[..., tuple[int, str]]) -> None:
    SIGNATURE.write_text(json.dumps(altered(json.loads(SIGNATURE.read_text()), change)))
    code, text = verify()
    assert code == 1
    assert len(text.splitlines()) == 1 and text.startswith(f"error: {SIGNATURE}: "), text


def test_keys(verify: Callable[..., tuple[int, str]], keys: Path) -> None:
    for key, said in (
        ("theirs/public.pem", "expected a signature of the key"),
        ("ours/private.pem", "expected a public key"),
        ("none.pem", "No such file"),
    ):
        code, text = verify(key=key)
        assert code == (1 if key.startswith("theirs") else 2)
        assert said in text and len(text.splitlines()) == 1
    before = SIGNATURE.read_bytes()
    for key, said in (("ours/public.pem", "expected a private key"), ("locked/private.pem", "without a passphrase")):
        code, text = command("sign", CHECKPOINT, "--key", str(keys / key))
        assert code == 2 and said in text and len(text.splitlines()) == 1
    assert SIGNATURE.read_bytes() == before


def test_a_signature_of_another_checkpoint(verify: Callable[..., tuple[int, str]]) -> None:
    code, text = verify(OTHER)
    assert code == 2 and "python -m pipeline_lib sign" in text
    shutil.copy(SIGNATURE, SIGNATURE.with_name("mixup-resnet-w4a4.intoto.json"))
    code, text = verify(OTHER)
    assert code == 1 and f"expected a statement about {OTHER}, found one about {CHECKPOINT}" in text


def test_an_ecdsa_key(verify: Callable[..., tuple[int, str]], keys: Path) -> None:
    assert command("sign", "mixup-resnet-w2a4", "--key", str(keys / "ecdsa/private.pem"))[0] == 0
    assert verify(key="ecdsa/public.pem")[0] == 0
    assert verify()[0] == 1


@pytest.mark.usefixtures("clone")
def test_nothing_is_signed_whose_audit_fails(keys: Path) -> None:
    SIGNATURE.unlink()
    an_edited_file("world/generator/model_index.json")()
    code, text = command("sign", CHECKPOINT, "--key", str(keys / "ours/private.pem"))
    assert code == 1
    assert "world/generator" in text and f"`python -m pipeline_lib audit {CHECKPOINT}`" in text
    code, text = command("sign", "data/synthetic/mixup", "--key", str(keys / "ours/private.pem"))
    assert code == 2 and CHECKPOINT in text
    assert not SIGNATURE.exists()


@pytest.mark.parametrize("verb", ["sign", "verify"])
@pytest.mark.parametrize("missing", ["in_toto_attestation", "securesystemslib"])
def test_without_the_packages(verb: str, missing: str, clone: Path, keys: Path) -> None:
    without = f"import sys; sys.modules[{missing!r}] = None; from pipeline_lib.__main__ import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", without, verb, CHECKPOINT, "--key", str(keys / "ours/private.pem")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"error: {missing}" in done.stderr and "`pip install -r requirements-sign.txt`" in done.stderr
    assert len(done.stderr.splitlines()) == 1
