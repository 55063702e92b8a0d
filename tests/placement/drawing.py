"""Random nodes, classes and asks of one case.

All that is drawn comes from one `random`: a seeded one, or hypothesis's, under which a case
shrinks. So the plain choice stands first in each list, and whatever is rare is what
`random.random()` gives near 1. A case has a few *features*, each a rule or a part of the points:
rules that all refuse at once would prove nothing.
"""

from dataclasses import replace

from homeport.model import (
    Availability,
    Inventory,
    MachineDevice,
    Node,
    NodeId,
    Overcommit,
    ServiceId,
    Taint,
)
from homeport.spec import (
    Constraint,
    ConstraintOperator,
    DeviceNeed,
    Neighbour,
    Preference,
    Resources,
    SpreadRule,
    Strategy,
    TaintEffect,
    Toleration,
    pairs,
)
from scheduler.placement.asks import Ask
from scheduler.placement.requirements import HostPort, Requirements

KEYS = ("node.labels.zone", "node.labels.rack", "node.hostname", "node.labels.none", "node.id")
VOLUMES = (("shop", "data"), ("shop", "logs"))
STICK, TOKEN = "/dev/ttyUSB0", "/dev/token"
WORDS = ("east", "a", "host1", "n8", "arm64", "id-n2", "4", "[a-e].*")
FEATURES = (
    "apart",
    "architecture",
    "binpack",
    "conditions",
    "constraints",
    "devices",
    "disk",
    "driver",
    "excluded",
    "generic",
    "gpus",
    "lease",
    "limits",
    "max",
    "near",
    "only",
    "overcommit",
    "paths",
    "pids",
    "pinned",
    "ports",
    "preferences",
    "priority",
    "runtimes",
    "soft",
    "spread",
    "states",
    "taints",
    "volumes",
    "wishes",
    "zones",
)


def rarely(random, share):
    """True with this probability."""
    return random.random() > 1 - share


def several(random, most, one):
    """Up to so many different ones."""
    return tuple(dict.fromkeys(one() for _ in range(random.randint(0, most))))


class Drawn:
    """What one case is made of."""

    def __init__(self, random):
        self.random = random
        self.features = frozenset(each for each in FEATURES if rarely(random, 0.22))
        if rarely(random, 0.06):
            self.size = random.randint(13, 60)
        else:
            self.size = random.choice((3, 2, 4, 5, 6, 8, 12, 1, 0))
        # Room for a handful of tasks on a node, or for more than anybody asks for.
        self.is_tight = rarely(random, 0.5)

    def has(self, feature, share=0.6):
        """Whether this one value has the feature."""
        return feature in self.features and rarely(self.random, share)

    # ------------------------------------------------------------ nodes

    def node(self, which):
        """The record of a node; the same node may come again as another."""
        random = self.random
        name = f"n{which}"
        if rarely(random, 0.3):
            # The order of names is not that of ids, nor that of arrival.
            name = f"{random.choice('mk')}{99 - which}"
        labels = {"zone": random.choice(("east", "west", "north", "")), "rack": random.choice("ab")}
        if self.has("constraints") or self.has("wishes"):
            labels["watts"] = random.choice(("", "3.5", "4", "15", "few"))
        return Node(
            id=NodeId(f"id-n{which}"),
            name=name,
            number=which,
            availability=random.choice(tuple(Availability))
            if self.has("states", 0.2)
            else Availability.ACTIVE,
            overcommit=Overcommit(cpu_percent=250, memory_percent=80)
            if self.has("overcommit")
            else Overcommit(),
            generic=(("stick", "2"), ("licence", "9")) if self.has("generic", 0.4) else (),
            labels=pairs({key: value for key, value in labels.items() if value}),
            inventory=self._inventory(which),
            taints=several(random, 2, self._taint) if self.has("taints") else (),
        )

    def _inventory(self, which):
        random = self.random
        tight = ((1000, 3 << 20), (3000, 10 << 20), (4000, 10 << 20), (4000, 0), (0, 10 << 20))
        cpu, memory = random.choice(tight) if self.is_tight else (16_000, 64 << 20)
        return Inventory(
            hostname=f"host{which}",
            os="linux",
            architecture="aarch64" if self.has("architecture") else "x86_64",
            capacity=Resources(
                cpu_millis=cpu,
                memory_bytes=memory,
                pids=random.choice((0, 3, 7)) if self.has("pids", 0.8) else 0,
                disk_bytes=random.choice((0, 20, 50)) if self.has("disk", 0.8) else 0,
                generic=(("stick", "3"),) if self.has("generic", 0.8) else (),
            ),
            drivers=("PROCESS",) if self.has("driver", 0.3) else ("DOCKER", "PROCESS"),
            oci_runtimes=("runc", "runsc") if self.has("runtimes") else ("runc",),
            unfenced="it sees no processes" if self.has("lease", 0.4) else "",
            paths=("/mnt", "/mnt/nas") if self.has("paths") else ("/mnt",),
            path_patterns=("/*", "/mnt/*") if self.has("paths", 0.8) else (),
            devices=self._devices(),
            device_patterns=("/dev/ttyUSB*",) if self.has("devices", 0.8) else (),
        )

    def _devices(self):
        random = self.random
        found = []
        if self.has("gpus", 0.8):
            vendor = random.choice(("nvidia", "nvidia", "amd"))
            found += [
                MachineDevice(
                    id=f"GPU-{number}",
                    kind="gpu",
                    names=(f"GPU-{number}", str(number)),
                    vendor=vendor,
                    model=random.choice(("T4", "T4", "A2")),
                )
                for number in range(random.choice((1, 2, 4)))
            ]
        if self.has("devices"):
            found.append(MachineDevice(id=STICK, kind="serial", names=(STICK,), vendor="ftdi"))
        return tuple(found)

    def state(self):
        """What is said of a node beside its record."""
        return {
            "ready": not self.has("states", 0.2),
            "unfit": "its disk is full" if self.has("conditions", 0.2) else "",
            "unfenced": "two machines have its key" if self.has("lease", 0.2) else "",
        }

    def _taint(self):
        return Taint(
            key=self.random.choice("gh"),
            value=self.random.choice(("", "yes")),
            effect=self.random.choice(tuple(TaintEffect)),
        )

    # ------------------------------------------------------------ classes

    def needs(self):
        """A requirement class."""
        random = self.random
        return Requirements(
            tolerations=several(random, 2, self._toleration) if self.has("taints", 0.5) else (),
            paths=("/mnt/nas/films",) if self.has("paths") else (),
            driver="PROCESS" if self.has("driver", 0.3) else "DOCKER",
            os="linux" if self.has("architecture", 0.3) else "",
            architecture=random.choice(("amd64", "arm64")) if self.has("architecture") else "",
            oci_runtime="runsc" if self.has("runtimes") else "",
            node=random.choice(("id-n1", "n0", "id-n0")) if self.has("pinned", 0.4) else "",
            cpu_millis=random.choice((100, 0, 333, 1000)),
            memory_bytes=random.choice((0, 1 << 20, 999_999)),
            pids=random.randint(1, 4) if self.has("pids") else 0,
            disk_bytes=random.randint(1, 30) if self.has("disk") else 0,
            ports=self._ports() if self.has("ports") else (),
            constraints=several(random, 2, self._constraint) if self.has("constraints") else (),
            spread=several(random, 3, lambda: random.choice(KEYS)) if self.has("spread") else (),
            preferences=several(random, 2, self._preference) if self.has("wishes") else (),
            spread_rules=self._spread_rules(),
            neighbours=self._neighbours(),
            labels=(("tier", "back"),) if rarely(random, 0.3) else (),
            strategy=random.choice(tuple(Strategy)) if self.has("binpack") else None,
            generic=random.choice(((("stick", 1),), (("licence", 2), ("stick", 1))))
            if self.has("generic")
            else (),
            tasks_per_node_max=random.randint(1, 3) if self.has("max") else 0,
            volumes=several(random, 2, lambda: random.choice(VOLUMES))
            if self.has("volumes")
            else (),
            devices=self._device_needs(),
        )

    def _ports(self):
        random = self.random
        addresses = ("", "192.0.2.1", "192.0.2.2")
        return several(
            random,
            2,
            lambda: HostPort(
                published=random.choice((80, 81)),
                protocol="udp" if rarely(random, 0.2) else "tcp",
                host_ip=random.choice(addresses),
            ),
        )

    def _constraint(self):
        random = self.random
        keys = (*KEYS, "node.platform.arch", "node.labels.watts")
        return Constraint(
            key=random.choice(keys),
            operator=random.choice(tuple(ConstraintOperator)),
            value=random.choice(WORDS),
            values=several(random, 2, lambda: random.choice(WORDS)),
        )

    def _preference(self):
        return Preference(constraint=self._constraint(), weight=self.random.randint(-100, 100))

    def _toleration(self):
        random = self.random
        return Toleration(
            key=random.choice(("g", "h", "")),
            value=random.choice((None, "", "yes")),
            effect=random.choice((None, *TaintEffect)),
        )

    def _spread_rules(self):
        random = self.random

        def rule():
            hard = self.has("zones", 0.8) or "soft" not in self.features
            return SpreadRule(
                key=random.choice(KEYS[:4]),
                max_skew=random.randint(1, 3),
                weight=0 if hard else random.choice((1, 50)),
            )

        return several(random, 2, rule) if self.has("zones") or self.has("soft", 0.4) else ()

    def _neighbours(self):
        random = self.random

        def rule(apart):
            return Neighbour(
                service=random.choice(("shop/web", "shop/db", "shop/db", "")),
                label="tier=back",
                key=random.choice(("node.id", *KEYS)),
                apart=apart,
                weight=random.choice((7, 40)) if self.has("soft", 0.6) else 0,
            )

        found = []
        if self.has("near"):
            found.append(rule(apart=False))
        if self.has("apart"):
            found.append(rule(apart=True))
        if self.has("soft", 0.3):
            found.append(replace(rule(apart=rarely(random, 0.5)), weight=25))
        return tuple(found)

    def _device_needs(self):
        random = self.random
        found = []
        if self.has("devices"):
            share = random.choice((1000, 0, 300))
            found.append(DeviceNeed(name=random.choice((STICK, TOKEN)), share_millis=share))
        if self.has("gpus", 0.8):
            found += [self._gpu_need() for _ in range(random.choice((1, 1, 1, 2)))]
        return tuple(found)

    def _gpu_need(self):
        random = self.random
        return DeviceNeed(
            kind="gpu",
            name=random.choice(("", "", "", "GPU-1")),
            vendor=random.choice(("", "", "nvidia", "amd")),
            models=random.choice(((), (), ("T4",), ("a*",))),
            count=random.choice((1, 1, 1, 2, -1)),
            share_millis=random.choice((1000, 300, 500, 700, 0)),
        )

    # ------------------------------------------------------------ asks

    def batch(self, kinds, n):
        """Asks of some services: a run of slots of each, or scattered ones."""
        random = self.random
        asks = []
        chosen = [random.choice(kinds) for _ in range(random.choice((1, 1, 2, 3)))]
        if rarely(random, 0.15):
            chosen = kinds[:3]  # all that wait for each other
        for service, needs in chosen:
            first = random.choice((1, 20))
            length = random.choice((1, 1, 2, 3, 5, 17, 25))
            if rarely(random, 0.015):
                length = random.randint(60, 400)  # more than one sorting is good for
            fields = {
                "excluded": (NodeId("id-n1"),) if self.has("excluded") else (),
                "needs_lease": self.has("lease"),
                "fixes_volumes": not self.has("volumes", 0.2),
                "priority": random.choice((0, -1, 1)) if self.has("priority") else 0,
                "only": NodeId(random.choice(("id-n0", "id-n1", "id-n99")))
                if self.has("only", 0.4)
                else None,
            }
            run = [
                ask_of(service, needs, slot, n=n, **fields) for slot in range(first, first + length)
            ]
            if rarely(random, 0.2):
                run = [self._other(each) if rarely(random, 0.3) else each for each in run]
            asks += run
        if rarely(random, 0.2):
            random.shuffle(asks)
        return list({ask.task: ask for ask in asks}.values())

    def _other(self, ask):
        """Of the same slot, and of another kind."""
        random = self.random
        fields = random.choice(
            (
                {"only": NodeId("id-n0")},
                {"excluded": (NodeId("id-n0"),)},
                {"fixes_volumes": not ask.fixes_volumes},
                {"needs_lease": not ask.needs_lease},
                {"priority": ask.priority + 1},
            )
        )
        return replace(ask, **fields)


def ask_of(service, needs, slot, *, n=1, **fields):
    """An ask of a service `shop-NAME-1`."""
    return Ask(
        service=ServiceId(service),
        name=service.replace("-", "/", 1).removesuffix("-1"),
        slot=slot,
        n=n,
        generation=1,
        needs=needs,
        **fields,
    )
