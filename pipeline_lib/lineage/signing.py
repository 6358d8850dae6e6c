"""Signatures: a DSSE envelope around a statement, signed offline with a key of the user's."""

from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error, VerificationError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from pipeline_lib.artifacts.records import read_json, write_json
from pipeline_lib.errors import InputError, RunError

PAYLOAD = "application/vnd.in-toto+json"
SIGNATURES = Path("data/signatures")


def signature_path(checkpoint: str) -> Path:
    """Where the signature of a checkpoint is: beside the outs, for DVC deletes those before a stage runs."""
    return SIGNATURES / f"{Path(checkpoint).name}.intoto.json"


def private_key(path: Path) -> CryptoSigner:
    """The signer of a private key.

    Raises:
        InputError: absent, or no private key that can be used.
    """
    try:
        return CryptoSigner(load_pem_private_key(_read(path), password=None))
    except (ValueError, TypeError, Error) as error:
        raise InputError(
            f"{path}: expected a private key (Ed25519 or ECDSA, PEM, without a passphrase), found none: "
            f"{' '.join(str(error).split())}; `openssl genpkey -algorithm ed25519 -out FILE` makes one"
        ) from None


def public_key(path: Path) -> Key:
    """A public key.

    Raises:
        InputError: absent, or no public key that can be used.
    """
    try:
        return SSlibKey.from_crypto(load_pem_public_key(_read(path)))
    except (ValueError, TypeError, Error) as error:
        raise InputError(
            f"{path}: expected a public key (Ed25519 or ECDSA, PEM), found none: {' '.join(str(error).split())}; "
            "`openssl pkey -in PRIVATE -pubout -out FILE` writes that of a private key"
        ) from None


def sign(content: bytes, signer: CryptoSigner, path: Path) -> None:
    """Write an envelope of a statement."""
    envelope = Envelope(content, PAYLOAD, {})
    envelope.sign(signer)
    write_json(path, envelope.to_dict())


def verified(path: Path, key: Key) -> bytes:
    """The statement in an envelope, once its signature is found to be of this key.

    Raises:
        InputError: there is no envelope.
        RunError: the file holds something else, or the signature is of another key or of other bytes.
    """
    if not path.exists():
        raise InputError(f"{path}: not found; `python -m pipeline_lib sign` writes it")
    try:
        envelope = Envelope.from_dict(read_json(path))
    except (InputError, KeyError, TypeError, ValueError, AttributeError, Error) as error:
        raise RunError(f"{path}: expected a DSSE envelope, found something else: {error}") from None
    if key.keyid not in envelope.signatures:
        raise RunError(f"{path}: expected a signature of the key {key.keyid[:12]}, found one of {_keys(envelope)}")
    try:
        envelope.verify([key], threshold=1)
    except VerificationError:
        raise RunError(f"{path}: the signature does not fit: the statement or the signature was altered") from None
    if envelope.payload_type != PAYLOAD:
        raise RunError(f"{path}: expected a payload of type {PAYLOAD}, found {envelope.payload_type}")
    return bytes(envelope.payload)


def _keys(envelope: Envelope) -> str:
    return ", ".join(str(keyid)[:12] for keyid in envelope.signatures) or "nobody"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; --key names a file") from None
