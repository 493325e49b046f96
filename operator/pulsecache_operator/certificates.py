"""The webhook's certificates: an own CA, a short-lived leaf, and their rotation. Pure: `now` is an argument.

The injector's Secret holds `ca.crt` (every CA that is trusted: the newest first), `ca.key` (of the newest), `tls.crt`
and `tls.key`. Rotation is a matter of levels: `renew` looks at what is there and says what should be there; called
again and again, it leads from any state to a good one, step by step, such that at each step whoever trusts the bundle
of the step before also trusts the leaf of the step after:

    1. the newest CA is old      -> a new one is put in front of it, and still signs nothing;
    2. everybody had time to learn it (`LEARN`) -> the next leaf is signed by it;
    3. nothing in use is signed by the old one any more, or it has expired -> it is left out.

Writing the Secret and the webhook configuration is left to the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE = timedelta(days=365)
LEAF_LIFE = timedelta(days=7)
SKEW = timedelta(minutes=5)
"""Certificates begin this much before they are made, for peers whose clocks are behind."""
LEARN = timedelta(hours=1)
"""How long a new CA is only announced before it signs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The four values of the Secret, PEM."""

    ca_bundle: bytes = b""
    ca_key: bytes = b""
    certificate: bytes = b""
    key: bytes = b""

    @classmethod
    def of(cls, data: Mapping[str, bytes]) -> Material:
        return cls(
            ca_bundle=data.get("ca.crt", b""),
            ca_key=data.get("ca.key", b""),
            certificate=data.get("tls.crt", b""),
            key=data.get("tls.key", b""),
        )

    def data(self) -> dict[str, bytes]:
        return {"ca.crt": self.ca_bundle, "ca.key": self.ca_key, "tls.crt": self.certificate, "tls.key": self.key}

    def expiry(self) -> datetime | None:
        """When the leaf ends; None where there is none that can be read."""
        leaf = _one(self.certificate)
        return leaf.not_valid_after_utc if leaf else None


@dataclass(frozen=True, slots=True)
class Renewal:
    material: Material
    done: tuple[str, ...]
    """What was made anew, and why; empty where nothing was."""


def dns_names(service: str, namespace: str) -> tuple[str, ...]:
    """The names by which the API server and people reach the webhook's Service."""
    return (f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.cluster.local", f"{service}.{namespace}", service)


def renew(material: Material, names: Sequence[str], now: datetime) -> Renewal:
    """What the Secret should hold at `now`. Idempotent: what is good stays as it is, byte for byte."""
    done: list[str] = []
    found = _many(material.ca_bundle)
    cas = [ca for ca in found if now < ca.not_valid_after_utc]
    ca_key = _private_key(material.ca_key)
    ca_problem = _ca_problem(cas, ca_key, now)
    if ca_problem or ca_key is None:
        ca_key = ec.generate_private_key(ec.SECP256R1())
        cas = [_authority(ca_key, now), *cas]
        done.append(f"new CA: {ca_problem}")
    newest = cas[0]
    # Every leaf of an older CA was signed before the newest one was made: it has ended one life of a leaf later.
    trusted = [ca for ca in cas if ca is newest or now < newest.not_valid_before_utc + SKEW + LEAF_LIFE]
    if not ca_problem and trusted != found:
        done.append("an old CA is no longer trusted")
    new = replace(material, ca_bundle=_pem(trusted), ca_key=_key_pem(ca_key)) if done else material
    if problem := _leaf_problem(material, trusted, names, now):
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = _leaf(key, newest, ca_key, names, now)
        new = replace(new, certificate=_pem([leaf]), key=_key_pem(key))
        done.append(f"new certificate: {problem}")
    return Renewal(new, tuple(done))


# --- making ------------------------------------------------------------------------------------------------------


def _authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    serial = x509.random_serial_number()
    # The name tells generations apart: with equal names a verifier may try only one of them.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"pulsecache CA {serial:x}"[:64])])
    public = key.public_key()
    return (
        x509.CertificateBuilder(name, name, public, serial, now - SKEW, now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
    now: datetime,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    end = min(now + LEAF_LIFE, ca.not_valid_after_utc)
    return (
        x509.CertificateBuilder(ca.subject, subject, key.public_key(), x509.random_serial_number(), now - SKEW, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority_identifier(ca), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _authority_identifier(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    subject = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject)


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


# --- judging -----------------------------------------------------------------------------------------------------


def _ca_problem(cas: Sequence[x509.Certificate], key: ec.EllipticCurvePrivateKey | None, now: datetime) -> str | None:
    if not cas:
        return "there is none that is valid"
    if key is None or not _belongs(key, cas[0]):
        return "the key of the old one is lost"
    return "two thirds of the life of the old one are over" if _spent(cas[0], now) else None


def _leaf_problem(
    material: Material, cas: Sequence[x509.Certificate], names: Sequence[str], now: datetime
) -> str | None:
    leaf, key = _one(material.certificate), _private_key(material.key)
    if leaf is None or key is None:
        return "there is none with its key"
    if not _belongs(key, leaf):
        return "its key belongs to another one"
    if now >= leaf.not_valid_after_utc:
        return "it has expired"
    if not any(_signed(leaf, ca) for ca in cas):
        return "no trusted CA has signed it"
    try:
        alternative = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "it names no host"
    if set(alternative.get_values_for_type(x509.DNSName)) != set(names):
        return f"it is not for {names[0]}"
    # One that works can wait until everybody has learned the CA that would sign the next; a broken one serves nobody.
    if _spent(leaf, now) and (_signed(leaf, cas[0]) or _known(cas[0], now)):
        return "two thirds of the life of the old one are over"
    return None


def _spent(certificate: x509.Certificate, now: datetime) -> bool:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now >= begin + (end - begin) * 2 / 3


def _known(ca: x509.Certificate, now: datetime) -> bool:
    return now >= ca.not_valid_before_utc + SKEW + LEARN


def _signed(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _belongs(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bool:
    return key.public_key() == certificate.public_key()


# --- reading: what cannot be read counts as not there, so that it is made anew -----------------------------------


def _many(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        return []


def _one(pem: bytes) -> x509.Certificate | None:
    found = _many(pem)
    return found[0] if found else None


def _private_key(pem: bytes) -> ec.EllipticCurvePrivateKey | None:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def now_utc() -> datetime:
    """Wall-clock time: certificates are compared with nothing else."""
    return datetime.now(UTC)
