"""Twelve nodes, each with another reason; `explain` names them all, and what it says helps.

The commands are run as they are printed, and what the file is to say is taken from the print, too.
Real scheduler and agent processes, the simulated runtime; each agent has a machine's file tree of
its own.
"""

import json
import re
import shlex
import signal

import pytest

from homeport.v1 import control_pb2, types_pb2
from tests.integration.processes import Agent, Scheduler, state_of, until
from tests.integration.test_cli import Cluster

pytestmark = pytest.mark.timeout(600)

START_SECONDS = 240  # thirteen interpreters, on a machine that may be busy
NAMES = [f"n{number:02}" for number in range(1, 13)]
WITHOUT_STICK, WITHOUT_FILMS, WITHOUT_TUNER, WITHOUT_LABEL, DEAD = "n06", "n07", "n08", "n03", "n10"
READY = types_pb2.NODE_STATE_READY

OTHERS = """
services:
  hog:
    image: example
    x-homeport: {{runtime: simulated}}
    deploy:
      placement: {{constraints: [node.hostname == n04]}}
      resources: {{reservations: {{memory: {memory}}}}}
  door:
    image: example
    ports: ["8080:80"]
    x-homeport: {{runtime: simulated}}
    deploy: {{placement: {{constraints: [node.hostname == n05]}}}}
  mill:
    image: example
    x-homeport: {{runtime: simulated}}
    deploy:
      placement: {{constraints: [node.labels.mill == yes]}}
      resources: {{reservations: {{cpus: '{cpus}'}}}}
  stick:
    image: example
    x-homeport: {{runtime: simulated, device: {{kind: serial}}}}
    deploy: {{placement: {{constraints: [node.hostname == n11]}}}}
  noisy:
    image: example
    x-homeport: {{runtime: simulated}}
    deploy: {{placement: {{constraints: [node.hostname == n12]}}}}
"""
WANT = """
services:
  want:
    image: example
    ports: ["8080:80"]
    volumes:
      - {{type: bind, source: /mnt/films, target: /films, bind: {{create_host_path: false}}}}
    x-homeport:
      runtime: simulated
      device: {{kind: serial}}
      apart: [others/noisy]
    deploy:
      placement: {{constraints: [node.labels.disk == ssd]}}
      resources:
        reservations:
          cpus: '{cpus}'
          memory: {memory}
          generic_resources: [{{discrete_resource_spec: {{kind: tuner, value: 1}}}}]
"""


class Lab(Cluster):
    """The command line in front of the twelve nodes, and how much each of them has."""

    def want(self, cpus):
        """Deploy the service that fits nowhere."""
        text = WANT.format(cpus=f"{cpus:g}", memory=self.memory // 2)
        self.ok("apply", "-f", self.file("want.yaml", text), "-p", "lab", "-q")

    def explained(self):
        """(the lines about nodes, the remedies as [(sentence, commands)]) of what waits."""
        until("it waits", lambda: self.state() == "PENDING")
        lines = self.ok("explain", "lab/want.1").splitlines()
        objections, remedies = [], []
        for line in lines:
            if found := re.fullmatch(r"  (smallest change|or): (.*)", line):
                remedies.append((found[2], []))
            elif line.startswith("      homeport "):
                remedies[-1][1].append(line.strip())
            elif line.startswith("    "):
                objections.append(line.strip())
        return objections, remedies

    def state(self):
        tasks = [task for task in self.client.tasks(stack="lab") if task.name == "want.1"]
        return state_of(tasks[0]) if len(tasks) == 1 else None

    def places(self, stack):
        """Where the running tasks of a stack are."""
        tasks = self.client.tasks(stack=stack)
        return {task.name: task.node_name for task in tasks if state_of(task) == "RUNNING"}

    def node(self):
        """Where it runs, once it does."""
        until("it runs", lambda: self.state() == "RUNNING", 60)
        (task,) = self.client.tasks(stack="lab")
        return task.node_name

    def carry_out(self, commands):
        for command in commands:
            program, *arguments = shlex.split(command)
            assert program == "homeport"
            self.ok(*arguments)

    def again(self, *undo):
        """Stop it, take back what was done for it, and let it wait once more."""
        self.ok("scale", "lab/want=0")
        until("it is gone", lambda: not list(self.client.tasks(stack="lab")))
        for arguments in undo:
            self.ok(*arguments)
        self.ok("scale", "lab/want=1")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Twelve nodes, of which each lacks something else for `want`."""
    folder = tmp_path_factory.mktemp("remedies")
    processes = [Scheduler(folder / "scheduler", start_seconds=START_SECONDS)]
    try:
        address = processes[0].leads().address
        agents = {}
        for name in NAMES:
            tree = folder / f"{name}-tree"
            (tree / "dev").mkdir(parents=True)
            (tree / "mnt").mkdir()
            if name != WITHOUT_STICK:
                (tree / "dev/ttyUSB0").touch()
            if name != WITHOUT_FILMS:
                (tree / "mnt/films").mkdir()
            agents[name] = Agent(folder / name, address, name, "--host-root", str(tree))
            processes.append(agents[name])
        lab = Lab(address, folder)
        with lab.client:
            until(
                "the nodes are ready",
                lambda: [view.state for view in lab.client.nodes()] == [READY] * len(NAMES),
                START_SECONDS,
            )
            _prepare(lab)
            agents[DEAD].end(signal.SIGKILL)
            until(
                f"{DEAD} is missed",
                lambda: [v.node.name for v in lab.client.nodes() if v.state != READY] == [DEAD],
                60,
            )
            yield lab
    finally:
        for process in reversed(processes):
            process.end(signal.SIGKILL if process.child.poll() is None else signal.SIGTERM)


def _prepare(lab):
    capacity = next(iter(lab.client.nodes())).node.inventory.capacity
    lab.cpus, lab.memory = capacity.cpu_millis / 1000, capacity.memory_bytes
    for name in NAMES:
        request = control_pb2.UpdateNodeRequest(node=name)
        if name != WITHOUT_LABEL:
            request.set_labels["disk"] = "ssd"
        if name != WITHOUT_TUNER:
            request.set_resources["tuner"] = "1"
        if name == "n09":
            request.set_labels["mill"] = "yes"
        lab.client.update_node(request)
    lab.ok("cordon", "n01")
    lab.ok("node", "update", "n02", "--taint", "gpu=yes")
    others = OTHERS.format(memory=lab.memory // 8 * 7, cpus=f"{lab.cpus / 2:g}")
    file = lab.file("others.yaml", others)
    lab.ok("apply", "-f", file, "-p", "others", "--wait", "-q")
    # Only now may it also run elsewhere.
    lab.ok("node", "update", WITHOUT_TUNER, "--label", "mill=yes")


def test_every_reason_is_named_and_each_change_that_is_suggested_makes_the_task_run(lab):
    wanted = lab.cpus * 3 / 4
    lab.want(wanted)
    objections, remedies = lab.explained()
    free, half = f"{lab.cpus / 2:g} CPU", f"{wanted:g} CPU"
    for name, expected in {
        "n01": "takes no new tasks: it is paused or drained",
        "n02": "has the taint gpu=yes:refuse, which this service does not tolerate",
        "n03": "does not satisfy node.labels.disk == ssd; there it is not set",
        "n04": r"has \S+ [GM]iB of memory free of reservations, and \S+ [GM]iB is needed",
        "n05": "has port 8080/tcp taken",
        "n06": "has 0 of 1 serial",
        "n07": "has no /mnt/films, and the bind of /mnt/films needs it to be there already",
        "n08": "has 0 tuner free of reservations, and 1 is needed",
        "n09": rf"has {free}s? free of reservations, and {half}s? (is|are) needed",
        "n10": "is not ready: its agent is not connected or has not reported yet",
        "n11": "has 0 of 1 serial free",
        "n12": "has a task of others/noisy, and it must be apart from that",
    }.items():
        said = [each for each in objections if each.startswith(f"{name} ")]
        assert len(said) == 1, (name, objections)
        assert re.fullmatch(f"{name} {expected}", said[0])

    # The smallest change is one of the file: it is made as it is printed.
    (smallest, commands), *others = remedies
    reserve = re.search(
        r"deploy\.resources\.reservations\.cpus: '(.*)'\); then it fits (n\d+)", smallest
    )
    assert reserve, smallest
    assert not commands
    lab.want(float(reserve[1]))
    assert lab.node() == reserve[2] == "n09"
    lab.want(wanted)
    lab.again()

    # All others are commands.
    undo = {
        "n01": ("cordon", "n01"),
        "n02": ("node", "update", "n02", "--taint", "gpu=yes"),
        "n03": ("node", "update", "n03", "--label-rm", "disk"),
    }
    tried = []
    for message, commands in others:
        assert lab.explained()[1] == remedies, "everything is as it was"
        lab.carry_out(commands)
        tried.append(lab.node())
        if tried[-1] in undo:
            assert tried[-1] in message
            lab.again(undo[tried[-1]])
        else:
            assert message == "move others/mill.1 from n09 to n08"
    assert tried == ["n01", "n02", "n03", "n09"], "the move was the last"
    until("the mill runs there", lambda: lab.places("others").get("mill.1") == "n08")


def test_the_api_and_a_plan_say_the_same(lab):
    lab.ok("scale", "lab/want=2")
    until("its second waits", lambda: len(list(lab.client.tasks(stack="lab"))) == 2)
    document = json.loads(lab.ok("explain", "lab/want.2", "-o", "json"))
    (task,) = document["tasks"]
    assert [each["node"] for each in task["nodes"] if "objections" in each] == NAMES
    first = task["remedies"][0]
    assert first["kind"] == "KIND_CHANGE_NODE"
    assert first["commands"] == ["homeport uncordon n01"]
    text = WANT.format(cpus=f"{lab.cpus * 3 / 4:g}", memory=lab.memory // 2)
    thrice = lab.file("thrice.yaml", text.replace("deploy:", "deploy:\n      replicas: 3"))
    planned = lab("plan", "-f", thrice, "-p", "lab", "-q")
    assert planned.returncode == 1
    assert "  want.3 would wait: " in planned.stdout
    assert f"      smallest change: {first['message']}\n" in planned.stdout
    assert "          homeport uncordon n01\n" in planned.stdout
    # A service that would be decided after it is not told that: the other would take the room.
    second = lab("plan", "-f", lab.file("other.yaml", text), "-p", "other", "-q")
    assert "  want.1 would wait: " in second.stdout
    assert "uncordon n01" not in second.stdout


def test_a_plan_shows_the_score_of_each_node_that_passes_and_why_the_others_do_not(lab):
    text = "services: {free: {image: example, x-homeport: {runtime: simulated}}}"
    planned = lab("plan", "-f", lab.file("free.yaml", text), "-p", "free", "--scores", "-q")
    lines = planned.stdout.splitlines()
    fits = [
        found[1] for line in lines if (found := re.match(r"    [ *] (n\d+): fits, score ", line))
    ]
    assert sorted(fits) == [name for name in NAMES if name not in ("n01", "n02", DEAD)]
    (chosen,) = (line for line in lines if line.startswith("    * "))
    assert f"free.1 -> {fits[0]}  " in planned.stdout
    assert re.search(r"score \d+ \(.*\w+ \d+, \w+ \d+", chosen)
    assert "      n02 has the taint gpu=yes:refuse, which this service does not tolerate" in lines
