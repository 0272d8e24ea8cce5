"""Certificates of a test's own authority."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make a certificate for an address, signed by the authority in ``ca.pem`` beside it."""
    folder = tmp_path_factory.mktemp("authority")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]

    def openssl(*args: str | Path) -> None:
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, timeout=30)

    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    openssl("req", "-x509", *key, "-keyout", ca_key, "-out", ca, "-days", "2",
            "-subj", "/CN=test authority")  # fmt: skip

    def certificate(address: str) -> Path:
        name = address.replace(".", "-")
        request, plain, whole = (folder / f"{name}.{end}" for end in ("csr", "crt", "pem"))
        kind = "IP" if address[0].isdigit() else "DNS"
        extensions = folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={kind}:{address}\n")
        openssl("req", *key, "-keyout", whole, "-out", request, "-subj", f"/CN={address}")
        openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial",
                "-days", "2", "-out", plain, "-extfile", extensions)  # fmt: skip
        whole.write_bytes(whole.read_bytes() + plain.read_bytes())
        return whole

    return certificate
