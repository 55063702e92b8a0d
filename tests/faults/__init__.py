"""Real faults on real parts: a whole cluster is broken on purpose, watched, and judged.

    make faults                  all of them; ONLY=F09,F13 for some

Three hosts (a network namespace and an engine each), three members of etcd, two schedulers and
three agents run a workload with a witness container for each exclusive task. Recorders write the
history (the users' calls, the store's every change, the engines' events, every process that lived),
each fault is done and healed, and checkers read the history at the end. `docs/faults.md` says how
to read a timeline and how to add a fault.

    world.py     the harness          cluster.py    what is broken
    witness.py observer.py stamp.py watcher.py load.py    the recorders, each a process of its own
    history.py loading.py checks/ verdicts.py timeline.py what was recorded, and what it means
    processes.py network.py etcd.py engines.py disks.py clocks.py storms.py    the faults

A newcomer would let a fault pass that never happened. So each asserts its own effect (nobody
answers, the disk is full, the clock differs) before it looks whether Homeport bore it.
"""
