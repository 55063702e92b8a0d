"""The networks below the engines: a bridge of its own for one, a switch and hosts for a lab.

A lab's switch is a bridge in a network namespace that holds nothing else, and the machine has one
cable into it. So no firewall rule and no setting of the machine (a FORWARD policy of DROP,
bridge-nf-call-iptables) comes between the hosts, and none has to be changed.

Names of links hold 15 characters: `hp`, the run, a letter and the component's number.
"""

import ipaddress

from tests.testbed import sweep
from tests.testbed.commands import ip, output_of
from tests.testbed.ledger import Component, index_of

_FIRST_PORT = 10_240
_PORTS_PER_BLOCK = 20


class MachineBridge:
    """A bridge and subnets in the machine's own namespace that no other engine has.

    The machine's firewall is left alone, with one exception: where another engine has set the
    machine to drop what it forwards, our containers could not talk to each other. One rule lets
    them, in our subnets only.
    """

    def __init__(self, component: Component) -> None:
        self._run = component.run
        self._block = self._run.reserve_block()
        # Below what the kernel and engines choose from by themselves (32768 and up).
        first = _FIRST_PORT + _PORTS_PER_BLOCK * index_of(self._block)
        self.ports = range(first, first + _PORTS_PER_BLOCK)
        self._name = f"hp{self._run.id}e{component.number}"
        self._run.record("link", self._name)
        ip("link", "add", self._name, "type", "bridge")
        ip("address", "add", f"{self._block.network_address + 1}/24", "dev", self._name)
        ip("link", "set", self._name, "up")
        if "-P FORWARD DROP" in output_of("iptables", "-w", "-S", "FORWARD", check=False):
            rule = sweep.forward_rule(str(self._block.network_address))
            output_of("iptables", "-w", "-I", *rule)

    def dockerd_arguments(self) -> list[str]:
        """What makes an engine use it, and keep its hands off the machine's own settings."""
        # The upper half of the /20 is for stack networks: 64 of 30 addresses.
        _, pool = self._block.subnets(prefixlen_diff=1)
        return [
            *("--bridge", self._name),
            *("--default-address-pool", f"base={pool},size=27"),
            "--iptables=false",
            "--ip-forward=false",
        ]

    def remove_networks(self) -> None:
        """Delete the bridges that the engine has made beside it."""
        sweep.remove_bridges(str(self._block.network_address), keep=self._name)

    def remove(self) -> None:
        """Delete all of it."""
        sweep.remove_bridges(str(self._block.network_address))
        sweep.remove_forward_rule(str(self._block.network_address))
        self._run.forget("link", self._name)
        self._run.release_block(self._block)


class Switch:
    """What a lab's hosts are plugged into, and the machine too: at `address`, for the scheduler."""

    def __init__(self, component: Component) -> None:
        self._run = component.run
        self._tag = f"hp{self._run.id}l{component.number}"
        self._block = self._run.reserve_block()
        self.subnet = ipaddress.IPv4Network(f"{self._block.network_address}/24")
        self.address = str(self.subnet.network_address + 1)
        self._cable = self._tag
        self._namespace = f"{self._tag}s"
        self._hosts: list[str] = []
        self._run.record("namespace", self._namespace)
        ip("netns", "add", self._namespace)
        ip("-n", self._namespace, "link", "add", "switch", "type", "bridge")
        ip("-n", self._namespace, "link", "set", "switch", "up")
        self._run.record("link", self._cable)
        self._plug_in(self._cable, None, port="machine", address=self.address)

    def add_host(self, number: int) -> tuple[str, str]:
        """A namespace with one network card; answers with its name and address.

        It has no default route: an engine that looks for a registry would wait for name
        resolution at every turn, instead of failing at once.
        """
        name = f"{self._tag}h{number}"
        address = str(self.subnet.network_address + 10 + number)
        self._run.record("namespace", name)
        ip("netns", "add", name)
        self._hosts.append(name)
        ip("-n", name, "link", "set", "lo", "up")
        self._plug_in("eth0", name, port=f"port{number}", address=address)
        return name, address

    def _plug_in(self, link: str, namespace: str | None, *, port: str, address: str) -> None:
        inside = ("-n", namespace) if namespace else ()
        peer = ("peer", "name", port, "netns", self._namespace)
        ip(*inside, "link", "add", link, "type", "veth", *peer)
        ip("-n", self._namespace, "link", "set", port, "master", "switch", "up")
        ip(*inside, "address", "add", f"{address}/24", "dev", link)
        ip(*inside, "link", "set", link, "up")

    def set_port(self, number: int, *, forwards: bool) -> None:
        """Let a host's frames through, or lose them all, without the host seeing its link go."""
        state = "3" if forwards else "0"
        output_of(
            *("nsenter", f"--net=/run/netns/{self._namespace}"),
            *("bridge", "link", "set", "dev", f"port{number}", "state", state),
        )

    def remove(self) -> None:
        """Delete the hosts' namespaces, the switch and the cable; nothing may run in them."""
        for name in [*self._hosts, self._namespace]:
            sweep.remove_namespace(name)
            self._run.forget("namespace", name)
        sweep.remove_link(self._cable)
        self._run.forget("link", self._cable)
        self._run.release_block(self._block)


def remove_bridges_of(namespace: str) -> None:
    """Delete the bridges that an engine has made in a host's namespace."""
    listing = ip("-n", namespace, "-br", "link", "show", "type", "bridge")
    for line in listing.splitlines():
        ip("-n", namespace, "link", "delete", line.split()[0], check=False)
