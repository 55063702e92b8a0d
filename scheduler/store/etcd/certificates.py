"""The certificates for etcd's members, read again when their files change.

Whoever renews them writes one file after the other. A newcomer's mistake: taking up what is
there at any moment. A certificate without its key would end what works, so only files that
belong together count, and until then the last ones do.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc
import structlog

from scheduler.store.base import Unavailable
from scheduler.store.etcd.options import EtcdOptions

Stamp = tuple[tuple[int, int, int] | None, ...]

log = structlog.get_logger(__name__)


class Certificates:
    """What TLS needs, as of the newest files that belong together."""

    def __init__(self, options: EtcdOptions) -> None:
        """Read them. Raises Unavailable when one cannot be read."""
        self._options = options
        self._stamp = self._stamped()
        self.edition = 0
        """Counts how often they were renewed."""
        self.credentials = _credentials(options)
        """None without TLS."""

    def look(self) -> bool:
        """Read them again if they have changed; whether that made a new edition."""
        if self.credentials is None:
            return False
        stamp = self._stamped()
        if stamp == self._stamp:
            return False
        try:
            credentials = _credentials(self._options)
            self._check()
        except (Unavailable, OSError) as error:  # an ssl.SSLError is an OSError
            log.warning("the certificates for etcd changed and cannot be used yet", why=str(error))
            # Said once: what belongs to this comes with another change.
            self._stamp = stamp
            return False
        if self._stamped() != stamp:
            return False  # being written just now
        self._stamp, self.credentials = stamp, credentials
        self.edition += 1
        log.info("the certificates for etcd were renewed")
        return True

    def _check(self) -> None:
        """Raise OSError where key and certificate do not belong together."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self._options.ca_file:
            context.load_verify_locations(self._options.ca_file)
        if self._options.cert_file:
            context.load_cert_chain(self._options.cert_file, self._options.key_file)

    def _stamped(self) -> Stamp:
        options = self._options
        paths = (options.ca_file, options.cert_file, options.key_file)
        return tuple(_stamp(path) for path in paths if path)


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _credentials(options: EtcdOptions) -> grpc.ChannelCredentials | None:
    """Raises Unavailable. Keys must be ECDSA P-256 or RSA: gRPC's TLS cannot use Ed25519."""
    if not options.is_tls:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=_content(options.ca_file),
        private_key=_content(options.key_file),
        certificate_chain=_content(options.cert_file),
    )


def _content(path: str) -> bytes | None:
    if not path:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise Unavailable(f"cannot read {path}, which etcd needs: {error.strerror}") from error
    if b"-----BEGIN" not in content:
        raise Unavailable(f"{path}, which etcd needs, is not a PEM file")
    return content
