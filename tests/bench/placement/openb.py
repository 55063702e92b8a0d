"""GPU placement on the openb traces: this project's engine beside the policies of the paper.

    python -m tests.bench.placement.openb [--traces NAME,…|given|all] [--seeds 3] [--policies all]

By the protocol of the paper (`openb_trace`). *Homeport* is the product's own engine: nodes with
GPUs in a Fleet, one ask for each pod, the strategy BINPACK as a user would choose it, the devices
that it grants counted. It knows nothing of what will come. The others are the published policies,
run here again (`openb_policies`), of which FGD is told the typical pods of the whole trace; and
what the paper printed. Traces that are not given are made by `openb_trace.variant_of`.

What it leaves out: departures, time, and everything else that tasks ask for.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

from homeport.devices import GPU
from homeport.model import Inventory, MachineDevice, Node, NodeId, ServiceId
from homeport.spec import DeviceNeed, Resources, Strategy
from scheduler.placement import engine
from scheduler.placement.asks import Ask, Placed
from scheduler.placement.fleet import Fleet
from scheduler.placement.requirements import Requirements
from tests.bench import results
from tests.bench.placement import openb_policies, openb_trace
from tests.bench.placement.openb_trace import PUBLISHED, Machine, Pod, Trace
from tests.bench.results import Target

OURS = "Homeport"
REQUIRED, GOAL = 95.3, 95.5
MIB = 1 << 20


def fleet_of(machines: Sequence[Machine]) -> Fleet:
    """Ready nodes, whose names sort as they stand."""
    fleet = Fleet()
    for which, machine in enumerate(machines):
        name = f"node-{which:04}"
        record = Node(
            id=NodeId(name),
            name=name,
            number=which + 1,
            inventory=Inventory(
                hostname=name,
                os="linux",
                architecture="x86_64",
                capacity=Resources(cpu_millis=machine.cpu, memory_bytes=machine.memory * MIB),
                drivers=("DOCKER",),
                devices=tuple(
                    MachineDevice(id=f"gpu{number}", kind=GPU, model=machine.model)
                    for number in range(machine.gpus)
                ),
            ),
        )
        fleet.node_changed(record, ready=True)
    return fleet


def needs_of(pod: Pod) -> Requirements:
    """What a service of such a pod needs."""
    need = DeviceNeed(kind=GPU, count=pod.gpus, share_millis=pod.share, models=pod.models)
    return Requirements(
        cpu_millis=pod.cpu,
        memory_bytes=pod.memory * MIB,
        devices=(need,) if pod.gpus else (),
        strategy=Strategy.BINPACK,
    )


def run(trace: Trace) -> tuple[float, float]:
    """(the share of GPU that is given out at the end, in percent; decisions a CPU second).

    A class that found no node is not asked again, as the controller does not: nothing leaves, so
    nothing wakes it.
    """
    fleet = fleet_of(trace.machines)
    classes = {pod: needs_of(pod) for pod in set(trace.pods)}
    waiting: set[Pod] = set()
    given = asked = 0
    begin = time.process_time()
    for which, pod in enumerate(trace.pods):
        if pod in waiting:
            continue
        asked += 1
        ask = Ask(service=ServiceId(f"pod-{which}"), slot=1, n=1, generation=1, needs=classes[pod])
        (answer,) = engine.place(fleet, [ask])
        if isinstance(answer, Placed):
            given += sum(grant.share_millis for grant in answer.grants)
        else:
            waiting.add(pod)
    seconds = time.process_time() - begin
    taken = sum(sum(node.granted.values()) for node in fleet.candidates.values())
    assert taken == given, "the fleet counts what was granted"
    return 100 * given / trace.capacity, asked / seconds


def measure(name: str, seeds: Sequence[int], policies: Sequence[str]) -> dict[str, list[float]]:
    """One trace with all policies: each one's figures, in the order of seeds; and our speed."""
    machines, known = openb_trace.load(name)
    found: dict[str, list[float]] = {policy: [] for policy in policies}
    found["decisions/s"] = []
    for seed in seeds:
        trace = openb_trace.trace(machines, known, seed)
        for policy in policies:
            if policy == OURS:
                percent, speed = run(trace)
                found["decisions/s"].append(speed)
            else:
                percent = openb_policies.run(policy, trace, seed)
            found[policy].append(percent)
    return found


def show(figures: dict[str, dict[str, list[float]]], policies: Sequence[str]) -> None:
    """The table, with the paper's figures in brackets."""
    rows = []
    for name, found in figures.items():
        paper = dict(zip(openb_policies.NAMES, PUBLISHED.get(name, ()), strict=False))
        cells = []
        for policy in policies:
            mean = f"{statistics.fmean(found[policy]):.2f}" if policy in found else ""
            cells.append(f"{mean} ({paper[policy]:.2f})" if policy in paper else mean)
        speed = found["decisions/s"]
        rows.append([name, *cells, f"{statistics.fmean(speed):,.0f}" if speed else ""])
    seeds = max(len(some) for found in figures.values() for some in found.values())
    results.table(
        f"GPU given out, %, mean of {seeds} seeds (in brackets: the paper, ten seeds)",
        ["trace", *policies, "our decisions/s"],
        rows,
    )


def targets(figures: dict[str, dict[str, list[float]]]) -> list[Target]:
    """What is required of what was measured; the made-up trace compares with nothing."""
    found = []
    if OURS in figures.get("default", {}):
        ours = statistics.fmean(figures["default"][OURS])
        found.append(Target("GPU given out, default trace", ours, REQUIRED, GOAL, unit=" %"))
    both = [
        each for name, each in figures.items() if name in PUBLISHED and {OURS, "FGD"} <= {*each}
    ]
    if both:
        ours, theirs = (
            statistics.fmean(statistics.fmean(each[policy]) for each in both)
            for policy in (OURS, "FGD")
        )
        what = f"GPU given out, mean of {len(both)} traces, beside FGD's {theirs:.2f} % here"
        found.append(Target(what, ours, theirs, unit=" %"))
    return found


def measured(traces: str = "given", seeds: int = 3, policies: str = "") -> list[Target]:
    """Measure, print, keep; returns how the targets were met.

    `policies`: `all`, or names with commas; without, all of them on the default trace and ours and
    FGD on the others.
    """
    every = (OURS, *openb_policies.NAMES)
    chosen = every if policies in ("", "all") else tuple(policies.split(","))
    figures: dict[str, dict[str, list[float]]] = {}
    for name in openb_trace.named(traces):
        run_here = chosen if policies or name in ("default", "made-up") else (OURS, "FGD")
        found = figures[name] = measure(name, range(42, 42 + seeds), run_here)
        means = (f"{policy} {statistics.fmean(found[policy]):.2f}" for policy in run_here)
        print(f"openb {name}: {', '.join(means)}", flush=True)
        results.keep("placement-openb", figures)
    show(figures, chosen)
    if not openb_trace.is_there():
        print("the openb traces are not on this machine; a made-up one compares with nothing")
    return targets(figures)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--traces", default="given", help="given, all, or names, by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--policies",
        default="",
        help="all, or names, by commas; without: all on the default trace, else ours and FGD",
    )
    options = parser.parse_args()
    found = measured(options.traces, options.seeds, options.policies)
    print(results.verdict(found))


if __name__ == "__main__":
    main()
