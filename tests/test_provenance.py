"""Content credentials: a certificate made by the test signs a result, and the signature can be read and is about it."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from serving.jobs.provenance import SigningError, check_signing, sign
from tests import footage
from tests.service import service_config
from utils.config import ServiceConfig
from utils.helpers import InputError

c2pa = pytest.importorskip("c2pa", reason="c2pa-python is not installed (requirements-service.txt)")
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A signing certificate with its own authority, as C2PA wants it: PEM chain and PEM key."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def name(text: str) -> object:
        return x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, text)])

    def issued(subject: str, public: object, signer: object, extensions: list[tuple[object, bool]]) -> bytes:
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder(name("Test authority"), name(subject), public, x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=30))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
        + ("decipher_only",),
        False,
    )
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    leaf = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.KeyUsage(digital_signature=True, key_cert_sign=False, crl_sign=False, **usage), True),
        (x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), False),
        (issuer, False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    ]
    root = [
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (x509.KeyUsage(digital_signature=False, key_cert_sign=True, crl_sign=True, **usage), True),
        (x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), False),
    ]
    folder = tmp_path_factory.mktemp("certificate")
    chain = issued("Test signer", key.public_key(), authority, leaf)
    (folder / "chain.pem").write_bytes(chain + issued("Test authority", authority.public_key(), authority, root))
    kind = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    return folder / "chain.pem", folder / "key.pem"


def signing_config(tmp_path: Path, certificate: tuple[Path, Path]) -> ServiceConfig:
    return service_config(tmp_path, c2pa_certificate=certificate[0], c2pa_key=certificate[1])


def test_a_signed_result_says_what_it_is(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    video = footage.make_video(tmp_path / "result.mp4", 0.4, size=(64, 64))
    config = signing_config(tmp_path, certificate)
    check_signing(config)
    sign(video, config)
    with c2pa.Reader(str(video)) as reader:
        manifest = json.loads(reader.json())
    active = manifest["manifests"][manifest["active_manifest"]]
    actions = next(a for a in active["assertions"] if a["label"].startswith("c2pa.actions"))["data"]["actions"]
    assert actions[0]["digitalSourceType"] == SOURCE
    faults = {fault["code"] for fault in manifest.get("validation_status", [])}
    assert faults <= {"signingCredential.untrusted"}  # nobody knows the test's authority; all else must be right


def test_a_changed_video_no_longer_fits_its_signature(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    video = footage.make_video(tmp_path / "result.mp4", 0.4, size=(64, 64))
    sign(video, signing_config(tmp_path, certificate))
    data = bytearray(video.read_bytes())
    data[-100] ^= 255
    video.write_bytes(data)
    with c2pa.Reader(str(video)) as reader:
        faults = {fault["code"] for fault in json.loads(reader.json())["validation_status"]}
    assert any("mismatch" in fault for fault in faults)


def test_without_a_certificate_nothing_happens(tmp_path: Path) -> None:
    video = footage.make_video(tmp_path / "result.mp4", 0.4, size=(64, 64))
    before = video.read_bytes()
    check_signing(service_config(tmp_path))
    sign(video, service_config(tmp_path))
    assert video.read_bytes() == before


def test_half_a_certificate_is_refused(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="c2pa_key"):
        check_signing(service_config(tmp_path, c2pa_certificate=certificate[0]))
    with pytest.raises(InputError, match="nowhere"):
        check_signing(signing_config(tmp_path, (certificate[0], tmp_path / "nowhere")))


def test_a_key_that_does_not_fit_is_named(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    (tmp_path / "key.pem").write_text("no key")
    config = signing_config(tmp_path, (certificate[0], tmp_path / "key.pem"))
    with pytest.raises(InputError, match="Nothing can be signed with .*chain.pem"):
        check_signing(config)
    video = footage.make_video(tmp_path / "result.mp4", 0.4, size=(64, 64))
    with pytest.raises(SigningError, match="cannot be signed"):
        sign(video, config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key.pem", "result.mp4"]
