"""The openb traces, as the experiment of the paper uses them; its figures; and stand-ins.

Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation
Gradient Descent", USENIX ATC 2023. The traces are data of the user's machine
(HOMEPORT_TEST_DATA, else ../shared/data); where they are absent, a small made-up trace of the
same shape stands in for them, which compares with nothing.

*The protocol*: the pods of a list in random order, then pods drawn from the list at random until
they have asked for 130 % of the cluster's GPUs (or, if the list asks for more, without as many);
they come one by one and stay; one that fits nowhere is gone. The nodes' names are shuffled too,
since ties go to the lowest name. The figure is the share of all GPU that is given out at the end.
"""

import csv
import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

FOLDER = (
    Path(os.environ.get("HOMEPORT_TEST_DATA") or Path(__file__).parents[4] / "shared/data")
    / "openb"
)
WHOLE = 1000
LOAD_PERCENT = 130


@dataclass(frozen=True, slots=True, order=True)
class Machine:
    """A GPU node."""

    cpu: int  # millis
    memory: int  # MiB
    gpus: int
    model: str


@dataclass(frozen=True, slots=True, order=True)
class Pod:
    """A task of the trace."""

    cpu: int
    memory: int
    gpus: int
    share: int  # thousandths of each
    models: tuple[str, ...] = ()  # any of them will do; empty: all

    @property
    def gpu_millis(self) -> int:
        """What it takes of all GPU."""
        return self.gpus * self.share

    @property
    def is_shared(self) -> bool:
        """Whether it takes a part of one GPU."""
        return self.gpus == 1 and self.share < WHOLE


@dataclass(frozen=True, slots=True)
class Trace:
    """What a run gets: nodes in the order of their names, pods as they come."""

    machines: tuple[Machine, ...]
    pods: tuple[Pod, ...]
    known: tuple[Pod, ...]  # the list that the pods are from: published policies know it
    capacity: int  # milli-GPU


PUBLISHED = {
    # GPU given out, %, mean of ten seeds, at 130 % load: random, dot product, clustering,
    # packing, best fit, FGD.
    "default": (87.47, 90.85, 91.88, 92.00, 93.08, 95.39),
    "cpu050": (91.24, 93.27, 93.79, 93.72, 93.79, 95.21),
    "cpu100": (89.11, 91.95, 92.64, 92.72, 93.44, 95.35),
    "cpu200": (83.77, 87.70, 89.92, 90.22, 92.40, 95.05),
    "cpu250": (80.42, 83.81, 87.99, 88.28, 91.45, 93.41),
    "gpushare40": (86.00, 89.56, 90.02, 90.03, 91.69, 94.15),
    "gpushare60": (83.65, 87.11, 87.20, 87.45, 89.36, 91.40),
    "gpushare80": (81.22, 84.49, 84.85, 85.00, 87.01, 89.30),
    "gpushare100": (79.44, 82.42, 82.65, 82.57, 85.01, 86.90),
    "gpuspec10": (87.43, 90.39, 92.18, 92.46, 93.30, 94.95),
    "gpuspec20": (87.24, 89.97, 92.25, 92.94, 93.30, 94.84),
    "gpuspec25": (86.94, 89.63, 92.08, 92.98, 93.23, 94.74),
    "gpuspec33": (86.46, 89.14, 92.12, 93.22, 93.09, 94.55),
    "multigpu20": (88.69, 92.06, 93.56, 93.71, 93.93, 95.65),
    "multigpu30": (89.27, 93.28, 94.72, 94.87, 94.72, 96.46),
    "multigpu40": (90.09, 94.19, 95.50, 95.74, 95.23, 96.99),
    "multigpu50": (90.27, 94.85, 95.81, 96.18, 95.74, 97.18),
}
GIVEN = ("default", "cpu100", "cpu200", "gpushare60", "gpuspec20", "multigpu30")


def is_there() -> bool:
    """Whether the traces are on this machine."""
    return (FOLDER / "openb_pod_list_default.csv").exists()


def named(names: str) -> tuple[str, ...]:
    """The traces of a command line: `given`, `all`, or names with commas."""
    if not is_there():
        return ("made-up",)
    return {"given": GIVEN, "all": tuple(PUBLISHED)}.get(names) or tuple(names.split(","))


def load(name: str) -> tuple[tuple[Machine, ...], tuple[Pod, ...]]:
    """The nodes, and a pod list."""
    return made_up() if name == "made-up" else (machines(), pods(name))


def machines() -> tuple[Machine, ...]:
    """The nodes of the paper."""
    with (FOLDER / "openb_node_list_gpu_node.csv").open() as file:
        return tuple(
            Machine(int(row["cpu_milli"]), int(row["memory_mib"]), int(row["gpu"]), row["model"])
            for row in csv.DictReader(file)
        )


def pods(variant: str) -> tuple[Pod, ...]:
    """A pod list: from the data where it is given, else made by `variant_of`."""
    path = FOLDER / f"openb_pod_list_{variant}.csv"
    if not path.exists():
        return variant_of(variant)
    with path.open() as file:
        return tuple(_pod(row) for row in csv.DictReader(file))


def _pod(row: dict[str, str]) -> Pod:
    gpus = int(row["num_gpu"])
    models = tuple(model for model in (row.get("gpu_spec") or "").split("|") if model)
    share = int(row["gpu_milli"]) if gpus else 0
    return Pod(int(row["cpu_milli"]), int(row["memory_mib"]), gpus, share, models)


def variant_of(variant: str) -> tuple[Pod, ...]:
    """A variant that is not given, by the recipe that those given show.

    cpuNNN: NN.N % of the pods have no GPU. gpushareNN: shared GPUs are NN % of what is asked,
    with as many pods as before. multigpuNN: pods of several GPUs, repeated, are NN % of what is
    asked. gpuspecNN: NN % of the GPU pods want certain models, as in gpuspec20.
    """
    rest = variant.lstrip("abcdefghijklmnopqrstuvwxyz")
    kind, number = variant.removesuffix(rest), int(rest)
    dice = random.Random(f"openb {variant}")
    default = pods("default")
    with_gpu = [pod for pod in default if pod.gpus]
    without = [pod for pod in default if not pod.gpus]
    part = number / (1000 if kind == "cpu" else 100)
    match kind:
        case "cpu":
            return (*with_gpu, *_drawn(dice, without, len(with_gpu) * part / (1 - part)))
        case "gpushare":
            shared = [pod for pod in with_gpu if pod.is_shared]
            others = [pod for pod in with_gpu if not pod.is_shared]
            a, b = _mean(shared), _mean(others)
            count = len(with_gpu) * part * b / (a * (1 - part) + part * b)
            others_count = len(with_gpu) - round(count)
            return (
                *_drawn(dice, shared, count),
                *_drawn(dice, others, others_count),
                *without,
            )
        case "multigpu":
            several = [pod for pod in with_gpu if pod.gpus > 1]
            have = sum(pod.gpu_millis for pod in several)
            want = (sum(pod.gpu_millis for pod in with_gpu) - have) * part / (1 - part)
            more = []
            while have < want:
                more.append(dice.choice(several))
                have += more[-1].gpu_millis
            return (*default, *more)
        case "gpuspec":
            wishes = [pod.models for pod in pods("gpuspec20") if pod.gpus and pod.models]
            there = set(machines())
            chosen = set(dice.sample(range(len(with_gpu)), round(len(with_gpu) * part)))
            wishing = (
                _wishing(dice, pod, wishes, there) if place in chosen else pod
                for place, pod in enumerate(with_gpu)
            )
            return (*wishing, *without)
        case _:
            raise ValueError(f"no variant {variant}")


def _drawn(dice: random.Random, some: Sequence[Pod], count: float) -> list[Pod]:
    number = round(count)
    if number <= len(some):
        return dice.sample(some, number)
    return [*some, *dice.choices(some, k=number - len(some))]


def _mean(some: Sequence[Pod]) -> float:
    return sum(pod.gpu_millis for pod in some) / len(some)


def _wishing(dice: random.Random, pod: Pod, wishes: Sequence[tuple[str, ...]], there) -> Pod:
    """A wish that some machine can meet."""
    for _ in range(50):
        models = dice.choice(wishes)
        if any(
            machine.model in models
            and machine.gpus >= pod.gpus
            and machine.cpu >= pod.cpu
            and machine.memory >= pod.memory
            for machine in there
        ):
            return replace(pod, models=models)
    return pod


def trace(nodes: Sequence[Machine], known: Sequence[Pod], seed: int) -> Trace:
    """One run's nodes and pods."""
    dice = random.Random(seed)
    coming = list(known)
    dice.shuffle(coming)
    capacity = sum(node.gpus for node in nodes) * WHOLE
    most = capacity * LOAD_PERCENT // 100
    asked = sum(pod.gpu_millis for pod in coming)
    first = len(coming)
    if asked > most:
        while asked > most:
            asked -= coming.pop().gpu_millis
    else:
        while asked + (pod := coming[dice.randrange(first)]).share <= most:
            coming.append(pod)
            asked += pod.gpu_millis
    shuffled = list(nodes)
    dice.shuffle(shuffled)
    return Trace(tuple(shuffled), tuple(coming), tuple(known), capacity)


def typical(known: Sequence[Pod]) -> list[tuple[Pod, float]]:
    """The paper's typical pods: the most frequent 95 %, without their memory, and how frequent."""
    counts = Counter(replace(pod, memory=0) for pod in known)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    found, seen = [], 0
    for pod, count in ordered:
        if seen >= 0.95 * len(known):
            break
        found.append((pod, count))
        seen += count
    return [(pod, count / seen) for pod, count in found]


def made_up() -> tuple[tuple[Machine, ...], tuple[Pod, ...]]:
    """Forty nodes, and pods such as the traces have; the same each time."""
    dice = random.Random("openb stands in")
    nodes = dice.choices(
        [
            Machine(96_000, 393_216, 8, "G2"),
            Machine(104_000, 524_288, 2, "T4"),
            Machine(16_000, 122_880, 2, "P100"),
            Machine(32_000, 131_072, 4, "V100"),
        ],
        weights=(45, 33, 12, 10),
        k=40,
    )
    kinds = [
        (Pod(3_000, 5_600, 1, 810), 13),
        (Pod(11_300, 49_152, 1, WHOLE), 25),
        (Pod(8_000, 30_000, 1, 470), 12),
        (Pod(4_000, 15_000, 1, 320), 6),
        (Pod(4_000, 8_000, 1, 160), 4),
        (Pod(9_800, 41_000, 1, WHOLE, ("T4", "V100")), 8),
        (Pod(16_000, 60_000, 2, WHOLE), 1),
        (Pod(88_000, 300_000, 8, WHOLE), 1),
        (Pod(12_000, 50_000, 0, 0), 10),
    ]
    some = dice.choices([kind for kind, _ in kinds], [weight for _, weight in kinds], k=260)
    return tuple(nodes), tuple(some)
