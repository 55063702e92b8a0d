"""How the store gets into a real etcd: certificates, users; and what it says when it does not."""

import asyncio
import contextlib

import pytest
import structlog
import trustme

from homeport.seams import SystemClock, system_randomness
from scheduler.metrics import Metrics
from scheduler.store.base import Unavailable, Write
from scheduler.store.etcd import EtcdOptions, EtcdStore
from scheduler.store.etcd.certificates import Certificates
from scheduler.store.etcd.maintenance import Maintenance
from tests.testbed.etcd import PASSWORD, Etcd
from tests.testbed.proxy import Wire


@pytest.fixture(scope="module")
def secure():
    with Etcd(tls=True) as etcd:
        yield etcd


@pytest.fixture(scope="module")
def guarded():
    with Etcd(auth=True) as etcd:
        yield etcd


@contextlib.asynccontextmanager
async def opened(etcd, **options):
    defaults = {"endpoints": etcd.endpoints}
    if etcd.tls:
        defaults |= {
            "ca_file": str(etcd.ca_file),
            "cert_file": str(etcd.cert_file),
            "key_file": str(etcd.key_file),
        }
    if etcd.auth:
        defaults |= {"user": "homeport", "password": PASSWORD}
    store = EtcdStore(EtcdOptions(**(defaults | options)), system_randomness())
    try:
        yield store
    finally:
        await store.close()


async def refusal(etcd, **options):
    """What a store with these options says."""
    async with opened(etcd, **options) as store:
        with pytest.raises(Unavailable) as raised:
            await store.commit([Write("a", b"1")])
    return str(raised.value)


async def next_value(watch):
    async with asyncio.timeout(20):
        return (await anext(watch)).changes[-1].value


# ------------------------------------------------------------------ certificates


async def test_with_a_client_s_certificate_everything_works(secure):
    async with opened(secure) as store:
        revision = await store.commit([Write("a", b"1")])
        lease = await store.grant(5)

        assert await store.keep_alive(lease) >= 5
        assert await next_value(store.watch("", revision - 1)) == b"1"


async def test_an_authority_that_did_not_sign_the_member_is_named(secure, tmp_path):
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)

    said = await refusal(secure, ca_file=str(other))

    assert f"not signed by {other}" in said
    assert secure.endpoints[0] in said


async def test_who_shows_no_certificate_is_told_to_set_one(secure):
    said = await refusal(secure, cert_file="", key_file="")

    assert "wants a certificate from us: set etcd_cert_file" in said


async def test_a_certificate_of_another_authority_is_named(secure, tmp_path):
    issued = trustme.CA().issue_cert("homeport")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "mine.pem")
    issued.private_key_pem.write_to_path(tmp_path / "mine.key")

    said = await refusal(
        secure, cert_file=str(tmp_path / "mine.pem"), key_file=str(tmp_path / "mine.key")
    )

    assert f"refused our certificate {tmp_path}/mine.pem" in said


async def test_a_name_that_the_certificate_does_not_have_is_said(secure):
    with Wire(("127.0.0.1", secure.members[0].port), host="127.0.0.2") as wire:
        said = await refusal(secure, endpoints=(f"https://{wire.address}",))

    assert "does not name that host" in said


async def test_plain_text_towards_tls_and_the_other_way_is_said(secure, guarded):
    port = secure.members[0].port
    bare = {"ca_file": "", "cert_file": "", "key_file": ""}
    plain = await refusal(secure, endpoints=(f"http://127.0.0.1:{port}",), **bare)
    assert "want TLS" in plain

    port = guarded.members[0].port
    encrypted = await refusal(guarded, endpoints=(f"https://127.0.0.1:{port}",))
    assert "does not speak TLS there" in encrypted
    assert "http://" in encrypted.partition("TLS")[2]


async def test_a_certificate_that_cannot_be_read_is_named_at_once(secure, tmp_path):
    for path in (tmp_path / "missing.pem", tmp_path):
        with pytest.raises(Unavailable, match=str(path)):
            async with opened(secure, ca_file=str(path)):
                pass


async def test_renewed_certificates_are_taken_up_without_a_restart():
    with Etcd(tls=True) as etcd:
        async with opened(etcd) as store:
            revision = await store.commit([Write("a", b"1")])
            watch = store.watch("a", revision)
            told = asyncio.create_task(next_value(watch))
            etcd.renew_certificates()
            etcd.members[0].restart()  # knows nobody any more who shows an old one

            await store.commit([Write("a", b"2")])
            assert await told == b"2"


async def test_a_certificate_that_a_member_does_not_take_yet_ends_nothing():
    with Etcd(tls=True) as etcd:
        async with opened(etcd) as store:
            care = care_of(store)
            await store.commit([Write("a", b"1")])
            await care.look()
            assert care.conditions == ()

            etcd.renew_certificates()  # the member trusts the old authority until its restart
            await care.look()
            (sentence,) = care.conditions
            assert f"{etcd.endpoints[0]} does not take our renewed certificate" in sentence
            await store.commit([Write("a", b"2")])

            etcd.members[0].restart()
            await store.commit([Write("a", b"3")])
            await care.look()
            assert care.conditions == ()


async def test_a_certificate_without_its_key_is_not_taken_up(secure, tmp_path):
    files = {"cert_file": tmp_path / "cert.pem", "key_file": tmp_path / "key.pem"}
    files["cert_file"].write_bytes(secure.cert_file.read_bytes())
    files["key_file"].write_bytes(secure.key_file.read_bytes())
    certificates = Certificates(
        EtcdOptions(
            endpoints=secure.endpoints,
            ca_file=str(secure.ca_file),
            **{name: str(path) for name, path in files.items()},
        )
    )
    assert not certificates.look()
    issued = trustme.CA().issue_cert("homeport")
    before = certificates.credentials

    files["cert_file"].unlink()
    assert not certificates.look()
    issued.cert_chain_pems[0].write_to_path(files["cert_file"])
    assert not certificates.look()
    assert (certificates.edition, certificates.credentials) == (0, before)

    issued.private_key_pem.write_to_path(files["key_file"])
    assert certificates.look()
    assert certificates.edition == 1
    assert certificates.credentials is not before
    assert not certificates.look()


# ------------------------------------------------------------------ users


async def test_with_a_user_everything_works(guarded):
    async with opened(guarded) as store:
        revision = await store.commit([Write("a", b"1")])
        lease = await store.grant(5)
        await store.commit([Write("leased", b"", lease=lease)])

        assert await next_value(store.watch("a", revision - 1)) == b"1"
        await store.compact(revision)
        await store.revoke(lease)
        assert await store.get("leased") is None


async def test_a_token_that_is_known_no_more_is_got_anew(guarded):
    # etcd's simple tokens live in a member's memory: a restart forgets them.
    async with opened(guarded) as store:
        revision = await store.commit([Write("a", b"1")])
        watch = store.watch("a", revision)
        first = asyncio.create_task(next_value(watch))
        await asyncio.sleep(0)

        guarded.members[0].restart()

        await store.commit([Write("a", b"2")])
        assert await first == b"2"
        assert (await store.get("a")).value == b"2"


async def test_a_wrong_password_is_said_and_not_repeated(guarded):
    said = await refusal(guarded, password="wrong horse")

    assert "does not know the user 'homeport' with that password" in said
    assert "horse" not in said


async def test_an_etcd_that_asks_for_a_user_says_so(guarded):
    assert "it asks for a user" in await refusal(guarded, user="", password="")


async def test_a_user_for_an_etcd_without_users_is_said(secure):
    assert "has no users" in await refusal(secure, user="ann", password="p")


async def test_what_the_user_may_not_is_said_with_the_way_out(guarded):
    said = await refusal(guarded, prefix="/elsewhere/")

    assert "the user 'homeport' may not do this" in said
    assert "readwrite /elsewhere/" in said


def care_of(store):
    return Maintenance(
        store,
        leading=lambda: (True, True),
        metrics=Metrics(),
        clock=SystemClock(),
        randomness=system_randomness(),
    )


async def looked_until(store, care, holds):
    """Look until it holds: etcd frees what a compaction left with one of the next writes."""
    async with asyncio.timeout(20):
        while True:
            await store.commit([Write("b", b"")])
            await care.look()
            if holds():
                return
            await asyncio.sleep(0.1)


async def wasted(store):
    """Have a file that is mostly empty."""
    for n in range(30):
        last = await store.commit([Write("a", bytes([n]) * 200_000)])
    await store.compact(last)


async def test_a_mostly_empty_file_is_rewritten_by_who_may(guarded, monkeypatch):
    monkeypatch.setattr("scheduler.store.etcd.upkeep.DEFRAGMENT_BYTES_MIN", 1)
    monkeypatch.setattr("scheduler.store.etcd.upkeep.TIDY_MEMBERS_MIN", 1)
    async with opened(guarded) as store:
        await wasted(store)
        care = care_of(store)
        with structlog.testing.capture_logs() as logs:
            await looked_until(
                store, care, lambda: 2 * care.statuses[0].used_bytes < care.statuses[0].size_bytes
            )
            assert not await care.look(), "not again at once"
        (failed,) = [each for each in logs if each["event"] == "upkeep of etcd failed"]
        assert "permission denied" in failed["why"]
        before = care.statuses[0].size_bytes

    async with opened(guarded, user="root") as store:
        care = care_of(store)
        await looked_until(store, care, lambda: care.statuses[0].size_bytes < before / 2)
        assert (await store.get("a")) is not None
