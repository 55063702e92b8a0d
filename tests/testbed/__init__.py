"""Real Docker hosts, registries and Prometheus servers on this one machine, for tests.

What a newcomer would get wrong: start engines by hand, find them by name, and leave containers,
mounts and namespaces behind. Everything below is private to one run of the tests, runs beside
other runs and beside the machine's own Docker, and is gone afterwards: when its `with` ends, when
the process ends however it ends short of SIGKILL, and after that at the next run's start or by
`python -m tests.testbed clean`. A run that leaves anything behind fails, and says what.

Fixtures (tests/testbed/fixtures.py):

    docker_engine   session   one engine with the test images          (mark the test `docker`)
    lab3            module    three hosts, an engine each, images      (mark the test `e2e`)
    registry        session   a container registry on the loopback

They are shared: remove what you create, heal what you cut. For an engine or lab of your own:

    from tests.testbed.engine import Engine
    with Engine() as engine:                 # live_restore=True; 0.3 s
        engine.load()                        # the test images, tests/testbed/images.py
        engine.stand_in("nginx:alpine", WEB)
        engine.host                          # DOCKER_HOST: unix://…
        engine.client()                      # docker.APIClient, closed with the engine
        engine.address, engine.ports         # where published ports answer; fixed ones to take
        engine.kill9(); engine.start()       # also terminate, restart, pause, resume, power_off
        engine.dockerd.tail()                # the daemon's log

    from tests.testbed.hosts import Lab
    with Lab(3) as lab:                      # live_restore=False for Swarm; 0.7 s
        lab.address                          # this process's own in the lab's network
        host = lab.hosts[0]                  # host.name, .address, .directory, .namespace, .engine
        host.run(["ping", …])                # to its end;  host.exec([…]) → Popen
        host.daemon(["homeport", "agent", …], name="agent").start()
        host.cut(); host.cut_from(address); host.heal()
        host.pause(); host.resume(); host.power_off(); host.engine.start()

    from tests.testbed.process import Daemon, free_port
    with Daemon([…], name="scheduler") as scheduler:
        scheduler.wait_for_port(port); scheduler.wait_for_line("listening on (.*)")
        scheduler.kill9(); scheduler.start(); scheduler.terminate(); scheduler.tail()

    from tests.testbed.registry import Registry         # .address, .push(engine, image, "web:1")
    from tests.testbed.proxy import Wire                # .stall(), .stall_after(n), .cut()
    from tests.testbed.etcd import Etcd                 # the real thing, one member or several
    with Etcd(3, tls=True, auth=True) as etcd:          # also hosts=lab.hosts, quota_bytes=…
        etcd.endpoints, etcd.environment()              # URLs; ETCDCTL_… for a scheduler too
        etcd.ctl("get", "--prefix", "/"); etcd.revision(); etcd.leader(); etcd.followers()
        member = etcd.members[0]                        # .name, .endpoint, .daemon, .status()
        member.kill9(); member.start().wait(); member.restart(); member.restart_empty()
        member.pause(); member.resume(); member.terminate()

    from tests.testbed.prometheus import Prometheus     # .query("up"), .wait_for(…), .targets()

Environment given to programs: this process's own without DOCKER_*, and HOMEPORT_TESTBED, by which
the testbed knows its processes again. What a program under test starts with an environment made
from nothing is found only if it runs on a lab's host; else the test has to end it.
"""
