"""The policies that the paper compares, as its simulator has them: for a table, not for use.

Scores are the simulator's, with its roundings: they decide ties, and ties go to the lowest name.
What a class has computed for a node is kept until the node changes.
"""

from collections.abc import Callable

import numpy as np

from tests.bench.placement.openb_trace import WHOLE, Machine, Pod, Trace, typical

CPU_MOST, GPU_MOST = 128_000, 8_000
NEVER = -(1 << 40)


class State:
    """What is left of all nodes."""

    def __init__(self, machines: tuple[Machine, ...]) -> None:
        most = max(machine.gpus for machine in machines)
        self.cpu = np.array([machine.cpu for machine in machines])
        self.memory = np.array([machine.memory for machine in machines])
        self.models = sorted({machine.model for machine in machines})
        self.model = np.array([self.models.index(machine.model) for machine in machines])
        self.count = np.array([machine.gpus for machine in machines])
        self.free = np.where(np.arange(most) < self.count[:, None], WHOLE, 0)
        # How many pods of each kind a node has: shared, or of so many whole GPUs.
        self.kinds = np.zeros((len(machines), most + 1), dtype=int)

    def fits(self, pod: Pod, rows: np.ndarray) -> np.ndarray:
        """Which of the rows have room."""
        enough = (self.cpu[rows] >= pod.cpu) & (self.memory[rows] >= pod.memory)
        if pod.gpus:
            enough &= (self.free[rows] >= pod.share).sum(axis=1) >= pod.gpus
            if pod.models:
                enough &= np.isin(
                    self.model[rows], [self.models.index(m) for m in pod.models if m in self.models]
                )
        return enough

    def tightest(self, pod: Pod, row: int) -> int:
        """The GPU with the least that is enough."""
        free = self.free[row]
        return int(np.where(free >= pod.share, free, WHOLE + 1).argmin())

    def take(self, pod: Pod, row: int, gpu: int) -> None:
        """Put a pod there; `gpu`: where it shares one."""
        self.cpu[row] -= pod.cpu
        self.memory[row] -= pod.memory
        if pod.is_shared:
            self.free[row, gpu] -= pod.share
            self.kinds[row, 0] += 1
        elif pod.gpus:
            self.free[row, np.flatnonzero(self.free[row] == WHOLE)[: pod.gpus]] = 0
            self.kinds[row, pod.gpus] += 1


Score = Callable[[State, Pod, np.ndarray], np.ndarray]


def dot_product(state: State, pod: Pod, rows: np.ndarray) -> np.ndarray:
    """The less alike what is free and what is asked, the better."""
    idle = state.free[rows].sum(axis=1)
    product = state.cpu[rows] / CPU_MOST * (pod.cpu / CPU_MOST)
    product += idle / GPU_MOST * (pod.gpu_millis / GPU_MOST)
    return (100 * (1 - product / 2)).astype(int)


def best_fit(state: State, pod: Pod, rows: np.ndarray) -> np.ndarray:
    """The less is left, the better."""
    cpu = (state.cpu[rows] - pod.cpu) / CPU_MOST
    gpu = (state.free[rows].sum(axis=1) - pod.gpu_millis) / GPU_MOST
    return ((1 - (cpu * 0.5 + gpu * 0.5)) * 100).astype(int)


def clustering(state: State, pod: Pod, rows: np.ndarray) -> np.ndarray:
    """Pods of a kind together, then empty nodes, then the others; full ones first."""
    if not pod.gpus:
        return np.zeros(len(rows), dtype=int)
    base = 25 * (GPU_MOST - state.free[rows].sum(axis=1)) // GPU_MOST
    kinds = (state.kinds[rows] > 0).sum(axis=1)
    same = state.kinds[rows, 0 if pod.is_shared else pod.gpus] > 0
    return base + np.where(same, np.where(kinds == 1, 75, 50), np.where(kinds == 0, 25, 0))


def packing(state: State, pod: Pod, rows: np.ndarray) -> np.ndarray:
    """First GPUs in use, then free ones of nodes in use, then free nodes."""
    if not pod.gpus:
        return np.zeros(len(rows), dtype=int)
    free = state.free[rows]
    whole = (free == WHOLE).sum(axis=1)
    if pod.is_shared:
        tight = np.where(free >= pod.share, free, WHOLE + 1).min(axis=1)
        used = np.where(tight == WHOLE, 49, np.maximum(100 - tight * 100 // WHOLE // 10, 50))
    else:
        used = np.full(len(rows), max(50 - pod.gpus, 33))
    return np.where(whole == state.count[rows], np.maximum(33 - whole, whole), used)


class Gradient:
    """FGD: where fragmentation grows least, over the typical pods of the whole trace."""

    def __init__(self, trace: Trace, state: State) -> None:
        known = typical(trace.known)
        self._weight = np.array([weight for _, weight in known])
        pods = [pod for pod, _ in known]
        self._cpu = np.array([pod.cpu for pod in pods])
        self._count = np.array([pod.gpus for pod in pods])
        self._share = np.array([pod.share for pod in pods])
        self._welcome = np.array(
            [
                [bool(pod.gpus) and (not pod.models or model in pod.models) for pod in pods]
                for model in state.models
            ]
        )

    def fragments(self, cpu: np.ndarray, model: np.ndarray, free: np.ndarray) -> np.ndarray:
        """Of each row of these nodes."""
        idle = free.sum(axis=1)
        usable = free[:, :, None] >= self._share
        ok = self._welcome[model] & (self._cpu <= cpu[:, None])
        ok &= usable.sum(axis=1) >= self._count
        lost = (free[:, :, None] * ~usable).sum(axis=1)
        return np.where(ok, lost, idle[:, None]) @ self._weight

    def score(self, state: State, pod: Pod, rows: np.ndarray) -> np.ndarray:
        """Of each row, with the GPU that is best for it."""
        return self.choices(state, pod, rows).max(axis=1)

    def choices(self, state: State, pod: Pod, rows: np.ndarray) -> np.ndarray:
        """Of each row and GPU; of each row alone, where there is no choice."""
        cpu, model, free = state.cpu[rows], state.model[rows], state.free[rows]
        before = self.fragments(cpu, model, free)
        if not pod.is_shared:
            after = free.copy()
            whole = after == WHOLE
            after[whole & (whole.cumsum(axis=1) <= pod.gpus)] = 0
            change = before - self.fragments(cpu - pod.cpu, model, after)
            return _sigmoid(change)[:, None]
        result = np.full(free.shape, NEVER)
        row, gpu = np.nonzero(free >= pod.share)
        after = free[row]
        after[np.arange(len(row)), gpu] -= pod.share
        change = before[row] - self.fragments(cpu[row] - pod.cpu, model[row], after)
        result[row, gpu] = _sigmoid(change)
        return result


def _sigmoid(change: np.ndarray) -> np.ndarray:
    return (100 / (1 + np.exp(-change / 1000))).astype(int)


NAMES = ("random", "dot product", "clustering", "packing", "best fit", "FGD")


def run(name: str, trace: Trace, seed: int) -> float:
    """The share of GPU that is given out at the end, in percent."""
    state = State(trace.machines)
    dice = np.random.default_rng(seed)
    gradient = Gradient(trace, state) if name == "FGD" else None
    scores: dict[str, Score] = {
        "dot product": dot_product,
        "clustering": clustering,
        "packing": packing,
        "best fit": best_fit,
    }
    score = gradient.score if gradient is not None else scores.get(name)
    seen: dict[Pod, tuple[int, np.ndarray]] = {}
    log: list[int] = []
    everything = np.arange(len(trace.machines))
    given = 0
    for pod in trace.pods:
        at, points = seen.get(pod) or (-1, np.empty(len(everything), dtype=np.int64))
        rows = everything if at < 0 else np.unique(np.array(log[at:], dtype=int))
        fits = state.fits(pod, rows)
        points[rows] = NEVER
        if fits.any():
            good = rows[fits]
            points[good] = 0 if score is None else score(state, pod, good)
        seen[pod] = (len(log), points)
        row = _choose(name, points, dice)
        if row < 0:
            continue
        gpu = -1
        if pod.is_shared:
            if gradient is not None:
                gpu = int(gradient.choices(state, pod, np.array([row]))[0].argmax())
            elif score is None:
                gpu = int(dice.choice(np.flatnonzero(state.free[row] >= pod.share)))
            else:
                gpu = state.tightest(pod, row)
        state.take(pod, row, gpu)
        log.append(row)
        given += pod.gpu_millis
    return 100 * given / trace.capacity


def _choose(name: str, points: np.ndarray, dice: np.random.Generator) -> int:
    if name == "random":
        good = np.flatnonzero(points != NEVER)
        return int(dice.choice(good)) if len(good) else -1
    best = int(points.argmax())
    highest = int(points[best])
    if highest == NEVER:
        return -1
    if name != "best fit":
        return best
    # Its points are stretched to 0 to 100 between the worst and the best, in whole numbers.
    lowest = int(points[points != NEVER].min())
    if highest == lowest:
        return best
    stretched = np.where(points == NEVER, -1, (points - lowest) * 100 // (highest - lowest))
    return int(stretched.argmax())
