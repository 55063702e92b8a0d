"""Compose keys that connect a container, on a real engine: networks, names, ports."""

from __future__ import annotations

import asyncio

import pytest

from agent.runtime.base import Rejected
from tests.contract.stage import Stage
from tests.testbed.engine import RunningEngine
from tests.testbed.process import free_port

pytestmark = pytest.mark.docker


async def test_networks(stage: Stage) -> None:
    actors = await stage.up_all(
        """
        services:
          web:
            image: hp/web:1
            networks:
              front: {aliases: [shop-window], ipv4_address: '${SUBNET}.77', priority: 100,
                      mac_address: '02:42:ac:11:65:43', driver_opts: {com.example.a: '1'}}
              back: {}
          client:
            image: hp/sleeper:1
            networks: [front]
        networks:
          front: {ipam: {config: [{subnet: '${SUBNET}.0/24'}]}}
          back: {internal: true}
        """
    )
    web, client = actors["web"], actors["client"]
    name = await web.run("hostname")
    for host in ("web", "shop-window", f"{stage.name}-web-1", f"{stage.subnet}.77"):
        assert await client.run(f"wget -qO- http://{host}/") == name
    assert await web.run("cat /sys/class/net/eth0/address") == "02:42:ac:11:65:43"
    networks = web.inspect()["NetworkSettings"]["Networks"]
    assert set(networks) == {f"{stage.name}_front", f"{stage.name}_back"}
    assert networks[f"{stage.name}_front"]["DriverOpts"] == {"com.example.a": "1"}
    seen = await web.seen()
    assert seen is not None
    assert dict(seen.addresses)["front"] == f"{stage.subnet}.77"


async def test_links(stage: Stage) -> None:
    actors = await stage.up_all(
        """
        services:
          web: {image: hp/web:1}
          client: {image: hp/sleeper:1, links: ['web:shop']}
        """
    )
    name = await actors["web"].run("hostname")
    assert await actors["client"].run("wget -qO- http://shop/") == name


async def test_mac_address(stage: Stage) -> None:
    app = await stage.up("mac_address: '02:42:ac:11:65:44'")
    assert await app.run("cat /sys/class/net/eth0/address") == "02:42:ac:11:65:44"


async def test_dns(stage: Stage) -> None:
    app = await stage.up("{network_mode: bridge, dns: [10.9.8.7]}")
    assert "nameserver 10.9.8.7" in await app.run("cat /etc/resolv.conf")


async def test_dns_opt(stage: Stage) -> None:
    app = await stage.up("{network_mode: bridge, dns_opt: ['timeout:7']}")
    assert "options timeout:7" in await app.run("cat /etc/resolv.conf")


async def test_dns_search(stage: Stage) -> None:
    app = await stage.up("{network_mode: bridge, dns_search: [example.test]}")
    assert "search example.test" in await app.run("cat /etc/resolv.conf")


async def test_extra_hosts(stage: Stage) -> None:
    app = await stage.up("extra_hosts: {harbour: 10.9.8.7, six: '::1'}")
    hosts = await app.run("cat /etc/hosts")
    assert "10.9.8.7\tharbour" in hosts
    assert "::1\tsix" in hosts


async def test_expose(stage: Stage) -> None:
    app = await stage.up("expose: ['8080', '53/udp']")
    assert {"8080/tcp", "53/udp"} <= set(app.inspect()["Config"]["ExposedPorts"])


async def test_ports(stage: Stage, docker_engine: RunningEngine) -> None:
    port = free_port()
    app = await stage.up(
        f"ports: [{{target: 80, published: {port}, host_ip: 127.0.0.1}}, '81/udp']",
        image="hp/web:1",
    )
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    seen = await app.seen()
    assert seen is not None
    bound = {(each.target, each.protocol): each for each in seen.ports}
    assert (bound[80, "tcp"].published, bound[80, "tcp"].host_ip) == (port, "127.0.0.1")
    assert bound[81, "udp"].published > 1023  # the engine picked one
    with pytest.raises(Rejected, match=rf"port {port}/tcp is taken .* container {stage.name}-app"):
        await stage.up_all(
            f"services: {{rival: {{image: hp/web:1, ports: ['127.0.0.1:{port}:80']}}}}"
        )


async def test_network_name(stage: Stage) -> None:
    name = f"{stage.name}-named"
    app = await stage.up("networks: [net]", f"networks: {{net: {{name: {name}}}}}")
    assert list(app.inspect()["NetworkSettings"]["Networks"]) == [name]


async def test_network_driver(stage: Stage) -> None:
    await stage.up("networks: [net]", "networks: {net: {driver: bridge}}")
    assert stage.engine.inspect_network(f"{stage.name}_net")["Driver"] == "bridge"
    with pytest.raises(Rejected, match="nosuchdriver"):
        await stage.up("networks: [other]", "networks: {other: {driver: nosuchdriver}}")


async def test_network_driver_opts(stage: Stage) -> None:
    app = await stage.up(
        "networks: [net]",
        "networks: {net: {driver_opts: {com.docker.network.driver.mtu: '1234'}}}",
    )
    assert await app.run("cat /sys/class/net/eth0/mtu") == "1234"


async def test_network_internal(stage: Stage) -> None:
    app = await stage.up("networks: [net]", "networks: {net: {internal: true}}")
    network = stage.engine.inspect_network(f"{stage.name}_net")
    assert network["Internal"]
    assert "10." not in await app.run("ip route | grep default.*via.*eth1")


async def test_network_attachable(stage: Stage) -> None:
    await stage.up("networks: [net]", "networks: {net: {attachable: true}}")
    assert stage.engine.inspect_network(f"{stage.name}_net")["Attachable"]


async def test_network_labels(stage: Stage) -> None:
    await stage.up("networks: [net]", "networks: {net: {labels: {com.example.a: '1'}}}")
    labels = stage.engine.inspect_network(f"{stage.name}_net")["Labels"]
    assert labels["com.example.a"] == "1"
    assert labels["dev.homeport.stack"] == stage.name


async def test_network_ipam(stage: Stage) -> None:
    app = await stage.up(
        "networks: [net]",
        """
        networks:
          net:
            ipam:
              driver: default
              config:
                - subnet: '${SUBNET}.0/24'
                  gateway: '${SUBNET}.200'
                  ip_range: '${SUBNET}.128/26'
                  aux_addresses: {router: '${SUBNET}.129'}
        """,
    )
    assert f"via {stage.subnet}.200" in await app.run("ip route")
    # The first of the range that is neither its network address nor taken by the router.
    assert f"{stage.subnet}.128/24" in await app.run("ip -4 addr show eth0")


async def test_network_enable_ipv6(stage: Stage) -> None:
    top = "networks: {net: {enable_ipv6: true, ipam: {config: [{subnet: 'fd00:77::/64'}]}}}"
    app = await stage.up("networks: {net: {ipv6_address: 'fd00:77::99'}}", top)
    network = stage.engine.inspect_network(f"{stage.name}_net")
    assert network["EnableIPv6"]
    endpoint = app.inspect()["NetworkSettings"]["Networks"][f"{stage.name}_net"]
    assert endpoint["GlobalIPv6Address"] == "fd00:77::99"


async def test_network_enable_ipv4(stage: Stage) -> None:
    if tuple(map(int, stage.engine.api_version.split("."))) >= (1, 48):
        await stage.up(
            "networks: [net]", "networks: {net: {enable_ipv4: false, enable_ipv6: true}}"
        )
        assert not stage.engine.inspect_network(f"{stage.name}_net")["EnableIPv4"]
    else:
        with pytest.raises(Rejected, match="enable_ipv4: false needs Docker Engine 28"):
            await stage.up("networks: [net]", "networks: {net: {enable_ipv4: false}}")


async def test_network_external(stage: Stage) -> None:
    name = f"{stage.name}-foreign"
    top = f"networks: {{net: {{external: true, name: {name}}}}}"
    with pytest.raises(Rejected, match=f"docker network create {name}"):
        await stage.up("networks: [net]", top)
    stage.engine.create_network(name)
    try:
        app = await stage.up("networks: [net]", top)
        assert list(app.inspect()["NetworkSettings"]["Networks"]) == [name]
        await stage.runtime.remove(app.task)
        await stage.runtime.clean(stage.name)
        assert stage.engine.networks(names=[name])
    finally:
        stage.engine.remove_network(name)
