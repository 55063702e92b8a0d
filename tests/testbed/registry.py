"""A real container registry (Debian's docker-registry) on this machine, for tests of pulling.

Engines take a registry on 127.0.0.0/8 or 10.0.0.0/8 without TLS. A lab's hosts reach it at the
lab's address: `Registry(host=lab.address)`. To pull slowly or break off halfway, put a
`proxy.Wire` before it and name images by the wire's address.
"""

import ctypes
import secrets
import string
import urllib.request
from types import TracebackType
from typing import Self

from tests.testbed.engine import RunningEngine
from tests.testbed.images import Image
from tests.testbed.ledger import current_run
from tests.testbed.process import Daemon, free_port


class Registry:
    """One registry, empty at first; with `user` and `password` it lets nobody else in."""

    def __init__(
        self, *, host: str = "127.0.0.1", user: str | None = None, password: str | None = None
    ) -> None:
        self._component = current_run().component("registry")
        self._user = user
        self._password = password
        self.host = host
        self.port = free_port(host)
        self.daemon = Daemon(
            ["docker-registry", "serve", self._component.directory / "config.yml"],
            component=self._component,
        )

    @property
    def address(self) -> str:
        """`host:port`, the first part of the names of its images."""
        return f"{self.host}:{self.port}"

    @property
    def auth_config(self) -> dict[str, str] | None:
        """For APIClient.pull and push; None if anybody may."""
        if self._user is None or self._password is None:
            return None
        return {"username": self._user, "password": self._password, "serveraddress": self.address}

    def start(self) -> Self:
        """Start it, and return when it answers."""
        directory = self._component.directory
        directory.mkdir(exist_ok=True)
        access = ""
        if self._user is not None and self._password is not None:
            line = f"{self._user}:{bcrypt(self._password)}\n"
            (directory / "htpasswd").write_text(line)
            access = f"auth: {{htpasswd: {{realm: tests, path: {directory}/htpasswd}}}}\n"
        (directory / "config.yml").write_text(
            "version: 0.1\n"
            "log: {level: warn}\n"
            f"storage: {{filesystem: {{rootdirectory: {directory}/images}}, "
            "delete: {enabled: true}}\n"
            f"http: {{addr: '{self.address}', secret: {secrets.token_hex(16)}}}\n" + access
        )
        self.daemon.start()
        self.daemon.wait_for_port(self.port, host=self.host)
        return self

    def push(self, engine: RunningEngine, image: Image, name: str) -> str:
        """Copy an image that the engine has to `name` (`team/web:1`) here; answers with its digest.

        The engine forgets the name again, so that it has something to pull. RuntimeError says what
        engine or registry objects to.
        """
        repository, _, tag = name.partition(":")
        full = f"{self.address}/{repository}"
        client = engine.client()
        client.tag(image.name, full, tag or "latest", force=True)
        digest = ""
        events = client.push(
            full, tag or "latest", stream=True, decode=True, auth_config=self.auth_config
        )
        for event in events:
            if "error" in event:
                raise RuntimeError(f"cannot push {full}: {event['error']}")
            digest = event.get("aux", {}).get("Digest", digest)
        client.remove_image(f"{full}:{tag or 'latest'}", noprune=True)
        return digest

    def repositories(self) -> str:
        """The registry's catalogue, as JSON; only without a password."""
        with urllib.request.urlopen(f"http://{self.address}/v2/_catalog", timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def stop(self) -> None:
        """End it and delete its images."""
        self.daemon.kill9()
        self._component.remove()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def bcrypt(password: str) -> str:
    """The password as docker-registry wants it in an htpasswd file.

    By the C library: Python's own `crypt` is gone in 3.13, and apache2-utils is one package more.
    """
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    letters = string.ascii_letters + string.digits + "./"
    salt = "$2b$05$" + "".join(secrets.choice(letters) for _ in range(21)) + "."
    hashed: bytes | None = library.crypt(password.encode(), salt.encode())
    if not hashed or not hashed.startswith(b"$2b$"):
        raise RuntimeError("this machine's libcrypt has no bcrypt")
    return hashed.decode()
