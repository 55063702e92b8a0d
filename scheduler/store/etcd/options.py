"""Where etcd is and how it lets us in: endpoints, certificates, user, key prefix.

Homeport's own settings win; what they leave open is taken from etcdctl's variables
(ETCDCTL_ENDPOINTS, _CACERT, _CERT, _KEY, _USER, _PASSWORD), so that what works for etcdctl in
a shell works for a scheduler started there. A newcomer's mistake: printing the options. The
password is left out of their repr, and of every sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scheduler.config import Config, ConfigError, split_address

DEFAULT_ENDPOINT = "127.0.0.1:2379"


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdOptions:
    """One etcd cluster, and our place in it."""

    endpoints: tuple[str, ...]  # URLs, http://HOST:PORT or https://…, all of one kind
    ca_file: str = ""  # PEM; empty: the system's authorities
    cert_file: str = ""  # PEM, ours; empty: we show none
    key_file: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    prefix: str = "/homeport/"  # every key of ours begins with it

    @property
    def is_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.endpoints[0].startswith("https://")

    @property
    def where(self) -> str:
        """The endpoints, for people."""
        return ", ".join(self.endpoints)


def options_of(config: Config, environ: Mapping[str, str], *, password: str = "") -> EtcdOptions:
    """The options of a scheduler with these settings. Raises ConfigError.

    `password` is the content of `etcd_password_file`, where that is set.
    """
    user, _, attached = environ.get("ETCDCTL_USER", "").partition(":")
    if config.etcd_user:
        user, attached = config.etcd_user, ""
    cert = config.etcd_cert_file or environ.get("ETCDCTL_CERT", "")
    key = config.etcd_key_file or environ.get("ETCDCTL_KEY", "")
    if bool(cert) != bool(key):
        raise ConfigError("etcd_cert_file and etcd_key_file belong together: set both or neither")
    ca = config.etcd_ca_file or environ.get("ETCDCTL_CACERT", "")
    secret = config.etcd_password or password or attached or environ.get("ETCDCTL_PASSWORD", "")
    if user and not secret:
        raise ConfigError(
            f"the etcd user {user!r} has no password: set etcd_password_file, or"
            " HOMEPORT_SCHEDULER_ETCD_PASSWORD in the environment"
        )
    given = config.etcd_endpoints or tuple(
        part.strip() for part in environ.get("ETCDCTL_ENDPOINTS", "").split(",") if part.strip()
    )
    return EtcdOptions(
        endpoints=_urls(given or (DEFAULT_ENDPOINT,), has_certificates=bool(ca or cert)),
        ca_file=ca,
        cert_file=cert,
        key_file=key,
        user=user,
        password=secret if user else "",
        prefix=_prefix(config.etcd_prefix),
    )


def _urls(given: tuple[str, ...], *, has_certificates: bool) -> tuple[str, ...]:
    """The endpoints as URLs, each once, in order."""
    urls: dict[str, None] = {}
    for text in given:
        scheme, found, rest = text.partition("://")
        if not found:
            scheme, rest = ("https" if has_certificates else "http"), text
        rest = rest.rstrip("/")
        if scheme not in ("http", "https"):
            raise ConfigError(f"the etcd endpoint {text} must begin with http:// or https://")
        host, port = split_address(rest, "an etcd endpoint")
        if port == 0:
            raise ConfigError(f"the etcd endpoint {text} has no port")
        urls[f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"] = None
    schemes = {url.partition(":")[0] for url in urls}
    if len(schemes) > 1:
        raise ConfigError("some etcd endpoints are http:// and some https://: make them all alike")
    if "http" in schemes and has_certificates:
        raise ConfigError(
            "certificates for etcd are set, and its endpoints are http://, where they would not be"
            " used: write https://"
        )
    return tuple(urls)


def _prefix(text: str) -> str:
    if not text.strip("/"):
        raise ConfigError(
            "etcd_prefix must not be empty: it keeps clusters apart that share an etcd"
        )
    return text if text.endswith("/") else f"{text}/"
