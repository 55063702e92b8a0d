"""Faults of the network: hosts cut off, one-way cuts, loss, narrow and slow links, late words.

A cut loses packets in silence and resets nothing, which is the case that hurts. Each fault proves
first that the packets are really lost (or late, or doubled), and heals what it did in any case.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.cluster import PORT, SCHEDULER_GROUP
from tests.faults.registry import fault, short
from tests.faults.relay import Relay
from tests.faults.world import World
from tests.testbed.commands import output_of
from tests.testbed.hosts import Host

PING = ["ping", "-c", "1", "-W", "1"]
LEASE_SECONDS, DOWN_SECONDS = 15.0, 17.0
REACH = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()"


def reaches(host: Host, address: str, port: int, *, group: int = 0) -> bool:
    """Whether a connection can be made from a host within a second, by a program of that group."""
    enter = ["setpriv", f"--regid={group}", "--clear-groups"]
    argv = [*enter, "python3", "-c", REACH, address, str(port)]
    done = host.run(argv, deadline_seconds=20)
    return done.returncode == 0


@contextmanager
def rule(host: Host, *words: str, table: str = "filter") -> Iterator[None]:
    """A rule of the firewall in a host's namespace, for as long as the `with` lasts."""
    enter = ["nsenter", f"--net=/run/netns/{host.namespace}"]
    output_of(*enter, "iptables", "-w", "-t", table, "-I", *words)
    try:
        yield
    finally:
        output_of(*enter, "iptables", "-w", "-t", table, "-D", *words, check=False)


@fault("F09", "a host is cut off", seconds=1200)
def host_cut_off(world: World) -> None:
    for seconds in (5, 15, 60, 600):
        _cut_off(world, seconds)


@short("F09")
def host_cut_off_for_a_moment(world: World) -> None:
    for seconds in (2, 20):
        _cut_off(world, seconds)


def _cut_off(world: World, seconds: float) -> None:
    """Up to a lease nothing stops, nearly at its end the mover at most; then all that may moves."""
    node = world.away_from_leader()
    host = world.cluster.host(node)
    leader = world.cluster.leader()
    if seconds < LEASE_SECONDS / 2:
        _move_etcds_leader(world, host)
    before = world.facts()
    is_long = seconds > DOWN_SECONDS
    moves = () if seconds < LEASE_SECONDS / 2 else ("mover",)
    with world.fault("F09", scope="node" if is_long else "agent", nodes=(node,), may_stop=moves):
        world.note(f"{seconds} s")
        begin = time.monotonic()
        with world.cluster.asking(leader):
            host.cut()
            assert host.run([*PING, world.lab.address]).returncode != 0
            if is_long:
                world.wait(lambda: world.cluster.states()[node] == "DOWN", "the node to be down")
                world.wait(lambda: world.all_but(node), "all that may move to run elsewhere")
                elsewhere = _away_from(world, node)
            world.lasts(max(0.0, seconds - (time.monotonic() - begin)))
            if is_long:
                assert _away_from(world, node) == elsewhere, "what had been moved did not stay"
        host.heal()
    now = world.facts()
    stays = {
        name
        for name in before
        if (not is_long or "anchor" in name or "canary" in name) and not ("mover" in name and moves)
    }
    assert {name: now.get(name) for name in stays} == {name: before[name] for name in stays}


def _move_etcds_leader(world: World, host: Host) -> None:
    """Off that host: to lose etcd's own leader is F18 and F20, and costs a moment everywhere."""
    etcd = world.cluster.etcd
    assert etcd is not None
    leader = etcd.leader()
    if leader.host is not host:
        return
    status = next(each for each in etcd.members if each is not leader).status()
    assert status is not None
    member = f"{status['header']['member_id']:x}"
    etcd.ctl("move-leader", member, endpoints=[leader.endpoint])
    world.wait(lambda: etcd.leader().host is not host, "etcd to be led from another host")


def _away_from(world: World, node: str) -> dict[str, object]:
    """The facts of all containers of the other hosts."""
    return {name: fact for name, fact in world.facts().items() if not name.startswith(f"{node}/")}


@fault("F10", "a host hears nobody, or nobody hears it", quick=True)
def one_way(world: World) -> None:
    node = world.away_from_leader()
    host = world.cluster.host(node)
    schedulers = [each.host for each in world.cluster.schedulers]
    leader = world.cluster.leader()
    with world.fault("F10", scope="node", nodes=(node,)):
        with world.cluster.asking(leader):
            for scheduler in schedulers:
                if scheduler is not host:
                    host.cut_from(scheduler.address)
            assert not reaches(host, leader.host.address, PORT)
            world.wait(lambda: world.cluster.states()[node] == "DOWN", "the deaf node to be down")
        host.heal()
    leader = world.cluster.leader()
    with world.fault("F10", scope="node", nodes=(node,)):
        with world.cluster.asking(leader):
            for scheduler in schedulers:
                if scheduler is not host:
                    scheduler.cut_from(host.address)
            assert not reaches(host, leader.host.address, PORT)
            world.wait(lambda: world.cluster.states()[node] != "READY", "the mute node missed")
            world.lasts(3)
        for scheduler in schedulers:
            scheduler.heal()


@fault("F11", "the leader is cut off from the store")
def scheduler_from_store(world: World) -> None:
    before = world.facts()
    leader, follower = world.cluster.leader(), world.cluster.follower()
    epoch = world.cluster.status().epoch
    with world.fault("F11", scope="scheduler", nodes=(leader.host.name,)):
        # Also its own member, on the loopback of its host.
        to_store = ["OUTPUT", "-p", "tcp", "--dport", "2379", "-j", "DROP"]
        with rule(leader.host, *to_store), world.cluster.asking(follower):
            assert not reaches(leader.host, leader.host.address, 2379)
            world.wait(lambda: world.cluster.status().epoch > epoch, "another leader")
            assert world.cluster.leader().name == follower.name
    assert world.facts() == before


@fault("F12", "the schedulers are cut off from each other")
def scheduler_from_scheduler(world: World) -> None:
    before = world.facts()
    one, other = world.cluster.schedulers[:2]
    epoch = world.cluster.status().epoch
    with world.fault("F12", scope="scheduler"):
        # What a scheduler itself says to the other, known by its group: agents of these hosts
        # go on reaching both.
        words = [
            *("OUTPUT", "-p", "tcp", "--dport", str(PORT)),
            *("-m", "owner", "--gid-owner", str(SCHEDULER_GROUP), "-j", "DROP"),
        ]
        with rule(one.host, *words), rule(other.host, *words):
            assert not reaches(other.host, one.host.address, PORT, group=SCHEDULER_GROUP)
            assert reaches(other.host, one.host.address, PORT)
            world.lasts(12)
            assert world.cluster.status().epoch == epoch, "a leader gave way to nothing"
    assert world.facts() == before


@fault("F13", "most of the hosts are lost at once", quick=True)
def most_lost(world: World) -> None:
    leader = world.cluster.leader()
    before = world.facts()
    agents = [host for host in world.lab.hosts if host is not leader.host]
    names = tuple(host.name for host in agents)
    epoch = world.cluster.status().epoch
    # The members of etcd still reach each other: what is lost is every other agent.
    words = ["OUTPUT", "-p", "tcp", "--dport", str(PORT), "-j", "DROP"]
    movers = ("mover",) if world.where("mover") in names else ()
    with world.fault("F13", scope="network", nodes=names, may_stop=movers):  # noqa: SIM117
        with rule(agents[0], *words), rule(agents[1], *words), world.cluster.asking(leader):
            assert not reaches(agents[0], leader.host.address, PORT)
            world.wait(
                lambda: all(world.cluster.states()[name] != "READY" for name in names),
                "both to be missed",
            )
            moved = _tasks_elsewhere(world, before)
            world.keep(lambda: not _tasks_elsewhere(world, before) - moved, "the brake", seconds=6)
    after = world.facts()
    stays = {name for name in before if "mover" not in name}
    changed = {name: (before[name], after.get(name)) for name in stays}
    changed = {name: facts for name, facts in changed.items() if facts[0] != facts[1]}
    assert not changed, changed
    assert not moved, f"moved in spite of the brake: {', '.join(sorted(moved))}"
    assert world.cluster.status().epoch == epoch


def _tasks_elsewhere(world: World, before: dict[str, tuple[str, int, str, int]]) -> set[str]:
    """Containers that were not there before, on any host."""
    return set(world.facts()) - set(before)


@fault("F14", "packets are lost", seconds=400)
def loss(world: World) -> None:
    for percent, is_quiet in ((10, True), (30, False)):
        scope = "agent" if is_quiet else "node"
        before = world.facts()
        lose = ["-m", "statistic", "--mode", "random", "--probability", str(percent / 100)]
        host = world.cluster.host(world.away_from_leader())
        with world.fault("F14", scope=scope, nodes=(host.name,)):  # noqa: SIM117
            with (
                rule(host, "INPUT", *lose, "-j", "DROP"),
                rule(host, "OUTPUT", *lose, "-j", "DROP"),
            ):
                lost = sum(host.run([*PING, world.lab.address]).returncode != 0 for _ in range(40))
                assert lost, "no packet was lost"
                world.lasts(15)
                world.cluster.homeport("nodes", seconds=60)
        if is_quiet:
            assert world.facts() == before


@fault("F15", "a link is narrow and slow")
def narrow(world: World) -> None:
    host = world.cluster.host(world.away_from_leader())
    _move_etcds_leader(world, host)
    before = world.facts()
    enter = ["nsenter", f"--net=/run/netns/{host.namespace}"]
    queue = ["qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "64kbit"]
    with world.fault("F15", scope="agent", nodes=(host.name,)):
        output_of(*enter, "tc", *queue, "burst", "4kb", "latency", "800ms")
        try:
            shown = json.loads(output_of(*enter, "tc", "-j", "qdisc", "show", "dev", "eth0"))
            assert any(each["kind"] == "tbf" for each in shown), shown
            world.lasts(15)
        finally:
            output_of(*enter, "tc", "qdisc", "del", "dev", "eth0", "root", check=False)
    with world.fault("F15", scope="agent", nodes=(host.name,)), _relayed(world, host) as relays:
        for relay in relays:
            relay.delay_seconds = 0.5
        world.lasts(15)
        assert sum(relay.late for relay in relays), "no byte was late"
    assert world.facts() == before


@contextmanager
def _relayed(world: World, host: Host) -> Iterator[list[Relay]]:
    """What this host's agent says to schedulers goes through a relay of the test's own."""
    relays = []
    undo = []
    try:
        for scheduler in world.cluster.schedulers:
            relay = Relay((scheduler.host.address, PORT), host=world.lab.address).start()
            relays.append(relay)
            words = [
                *("OUTPUT", "-p", "tcp", "-d", scheduler.host.address, "--dport", str(PORT)),
                *("-j", "DNAT", "--to-destination", relay.address),
            ]
            undo.append(rule(host, *words, table="nat"))
            undo[-1].__enter__()
        _break_connections(world, host)
        world.wait(lambda: any(relay.connections for relay in relays), "the agent to come by")
        yield relays
    finally:
        for each in reversed(undo):
            each.__exit__(None, None, None)
        for relay in relays:
            relay.stop()


def _break_connections(world: World, host: Host) -> None:
    """Have the agent dial again, so that rules for new connections take hold."""
    agent = world.cluster.agents[host.name]
    agent.kill9()
    agent.start()


@fault("F16", "a write arrives after its writer has been deposed")
def late_write(world: World) -> None:
    """The leader's words to the store are held for longer than its lease, then delivered."""
    before = world.steady()
    leader = world.cluster.leader()
    epoch = world.cluster.status().epoch
    # It takes several changes of leader to have the right one behind the relays.
    moves = ("mover",)
    with world.fault("F16", scope="scheduler", nodes=(leader.host.name,), may_stop=moves):
        relays = []
        rules = []
        try:
            for member in world.cluster.etcd.members if world.cluster.etcd else ():
                relay = Relay((member.address, 2379), host=world.lab.address).start()
                relays.append(relay)
                words = [
                    *("OUTPUT", "-p", "tcp", "-d", member.address, "--dport", "2379"),
                    *("-j", "DNAT", "--to-destination", relay.address),
                ]
                rules.append(rule(leader.host, *words, table="nat"))
                rules[-1].__enter__()
            leader.daemon.kill9()
            leader.daemon.start()
            world.wait(lambda: world.cluster.status().epoch > epoch, "another leader")
            between = world.cluster.status().epoch
            other = world.cluster.leader()
            # Whoever leads is to be the one behind the relays.
            if other.name != leader.name:
                other.daemon.kill9()
                world.wait(lambda: world.cluster.status().epoch > between, "the relayed leader")
                other.daemon.start()
            assert world.cluster.leader().name == leader.name
            epoch = world.cluster.status().epoch
            world.wait(lambda: sum(relay.connections for relay in relays), "a connection")
            world.lasts(2)
            follower = world.cluster.follower()
            for relay in relays:
                relay.hold()
            with world.cluster.asking(follower):
                world.wait(lambda: world.cluster.status().epoch > epoch, "another leader")
            for relay in relays:
                relay.let_go()
            assert sum(relay.held_bytes for relay in relays), "nothing was held"
            world.lasts(2)
        finally:
            for each in reversed(rules):
                each.__exit__(None, None, None)
            for relay in relays:
                relay.stop()
    assert world.steady() == before


@fault("F17", "requests and reports come twice")
def doubled(world: World) -> None:
    from tests.faults.doubling import doubled_reports, repeated_apply

    before = world.facts()
    with world.fault("F17", scope="agent"):
        revisions = repeated_apply(world)
        assert len(set(revisions)) == 1, f"one request was done more than once: {revisions}"
    # Its agent is killed twice to go another way, which may take a loaded machine a whole lease.
    node = world.away_from(world.cluster.leader().host.name, world.where("mover"))
    host = world.cluster.host(node)
    with world.fault("F17", scope="agent", nodes=(host.name,)):
        count = doubled_reports(world, host)
        assert count, "no report was doubled"
        time.sleep(1)
    assert world.facts() == before
