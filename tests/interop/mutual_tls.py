"""Certificates by OpenSSL, and TLS that demands them of both sides."""

import datetime
import ipaddress
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(hours=1)


class Authority:
    """Who vouches for a server and its clients."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = named("an authority made for a test")
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self.certificate = (
            self.certificate_of(self.name, self.key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def server(self) -> tuple[str, str]:
        """Certificate and key of a server at 127.0.0.1."""
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        key = ec.generate_private_key(ec.SECP256R1())
        return self.issued("127.0.0.1", key, ExtendedKeyUsageOID.SERVER_AUTH, address)

    def client(self, name: str) -> tuple[str, str]:
        """Certificate and key of a client."""
        alternative = x509.SubjectAlternativeName([x509.DNSName(name)])
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return self.issued(name, key, ExtendedKeyUsageOID.CLIENT_AUTH, alternative)

    def issued(self, name: str, key, usage, alternative) -> tuple[str, str]:
        certificate = (
            self.certificate_of(named(name), key)
            .add_extension(alternative, critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate.public_bytes(Encoding.PEM).decode(), private.decode()

    def certificate_of(self, name: x509.Name, key) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - LIFETIME)
            .not_valid_after(now + LIFETIME)
            .add_extension(identifier, critical=False)
            .add_extension(issuer, critical=False)
        )


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def demanding(authority: Authority) -> ssl.SSLContext:
    """TLS of a server that lets in whom its own authority vouches for."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.pem())
    context.verify_mode = ssl.CERT_REQUIRED
    certificate, key = authority.server()
    with tempfile.TemporaryDirectory() as folder:
        # OpenSSL takes its own from files only.
        own = Path(folder) / "own.pem"
        own.write_text(certificate + key)
        context.load_cert_chain(own)
    return context
