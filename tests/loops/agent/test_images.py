"""Fetching an image from a scheduler: in chunks, resumed, and never a damaged one."""

import hashlib
from pathlib import Path

import pytest

from agent.identity import Identity
from agent.images import Images
from agent.runtime.base import Rejected, Unavailable
from homeport.v1 import dispatcher_pb2 as pb
from tests.loops.agent.schedulers import Lane

ARCHIVE = bytes(range(256)) * 40
DIGEST = hashlib.sha256(ARCHIVE).hexdigest()
IMAGE = "sha256:feed"
CHUNK = 1_000


class Engine:
    """An engine that knows what it was given."""

    def __init__(self, holds: str = IMAGE) -> None:
        self.holds = holds
        self.images: set[str] = set()
        self.loaded: list[bytes] = []

    async def has_image(self, image_id: str) -> bool:
        return image_id in self.images

    async def load_image(self, archive: str) -> None:
        self.loaded.append(Path(archive).read_bytes())  # noqa: ASYNC240 - a few bytes
        self.images.add(self.holds)


class Store:
    """A scheduler that has the archive; it breaks off after so many chunks."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.breaks_after = 0
        self.damages = False
        self.error = ""

    def bulk(self) -> Lane:
        lane = Lane()
        lane.take = lambda message: self._serve(lane, message.hello.image.offset)  # type: ignore[method-assign]
        return lane

    def _serve(self, lane: Lane, offset: int) -> None:
        self.offsets.append(offset)
        if self.error:
            lane.give(pb.BulkResponse(end=pb.BulkEnd(error=self.error)))
            return
        for number, at in enumerate(range(offset, len(ARCHIVE), CHUNK), start=1):
            data = ARCHIVE[at : at + CHUNK]
            if self.damages:
                data = bytes(len(data))
            chunk = pb.ImageChunk(
                offset=at, data=data, total_bytes=len(ARCHIVE), archive_digest=DIGEST
            )
            lane.give(pb.BulkResponse(image_chunk=chunk))
            if number == self.breaks_after:
                lane.break_off()
                return
        lane.give(pb.BulkResponse(end=pb.BulkEnd()))


def images(engine: Engine, store: Store, folder) -> Images:
    return Images(
        engine,  # type: ignore[arg-type]
        folder,
        link=lambda: store,  # type: ignore[arg-type, return-value]
        identity=lambda: Identity(request_id="r", node_id="n1"),
    )


async def test_an_image_is_fetched_once_and_loaded(tmp_path) -> None:
    engine, store, told = Engine(), Store(), []
    fetched = images(engine, store, tmp_path)
    await fetched.ensure(IMAGE, told.append)
    await fetched.ensure(IMAGE, told.append)
    assert engine.loaded == [ARCHIVE]
    assert store.offsets == [0]
    assert "fetching the image from the scheduler: 100 %" in told
    assert list(tmp_path.iterdir()) == []


async def test_a_fetch_goes_on_where_it_was_also_after_a_restart(tmp_path) -> None:
    engine, store = Engine(), Store()
    store.breaks_after = 3
    with pytest.raises(Unavailable, match="goes on later"):
        await images(engine, store, tmp_path).ensure(IMAGE, print)
    store.breaks_after = 0
    await images(engine, store, tmp_path).ensure(IMAGE, print)
    assert store.offsets == [0, 3 * CHUNK]
    assert engine.loaded == [ARCHIVE]


async def test_a_damaged_archive_is_not_loaded_and_fetched_anew(tmp_path) -> None:
    engine, store = Engine(), Store()
    store.damages = True
    with pytest.raises(Unavailable, match="damaged"):
        await images(engine, store, tmp_path).ensure(IMAGE, print)
    assert engine.loaded == []
    store.damages = False
    await images(engine, store, tmp_path).ensure(IMAGE, print)
    assert store.offsets == [0, 0]


async def test_an_archive_of_another_image_is_refused(tmp_path) -> None:
    with pytest.raises(Rejected, match="another image"):
        await images(Engine(holds="sha256:beef"), Store(), tmp_path).ensure(IMAGE, print)


async def test_a_scheduler_without_the_archive_says_so(tmp_path) -> None:
    store = Store()
    store.error = "the archive is not on this scheduler"
    with pytest.raises(Unavailable, match="not on this scheduler"):
        await images(Engine(), store, tmp_path).ensure(IMAGE, print)
