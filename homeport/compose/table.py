"""docs/compose.md, made from the rows: `python -m homeport.compose.table > docs/compose.md`.

The prose here says what a table cannot; what it says of keys comes from `rows` alone, so that
page, checks and notices cannot differ.
"""

from __future__ import annotations

from homeport.compose import dotenv, interpolation, quantities, reader
from homeport.compose.deploy import REPLICAS_MAX
from homeport.compose.ports import PORTS_OF_STACK_MAX
from homeport.compose.rows import BUILD, DEPLOY, NETWORK, OURS, SERVICE, STORED, TOP, VOLUME, Row
from homeport.compose.sources import TREE_BYTES_MAX, TREE_FILES_MAX

_SECTIONS = (
    ("Top level and `include`", TOP),
    ("Services", SERVICE),
    ("Services: `build`", BUILD),
    ("Services: `deploy`", DEPLOY),
    ("Services: `x-homeport`", OURS),
    ("Networks", NETWORK),
    ("Volumes", VOLUME),
    ("Configs and secrets", STORED),
)

_HEAD = f"""\
<!-- Made by `python -m homeport.compose.table`; edit homeport/compose, not this page. -->
# Compose files in Homeport

Homeport's manifest is the Compose file that you have. Every key of the Compose specification is in
the tables below, and each has one of three standings:

- **mapped**: it does here what it does in Compose. The test named beside it shows the effect.
- **mapped with a notice**: something differs; `plan` and `apply` say what, with file and line.
- **refused**: `plan` and `apply` stop, and say why and what to do instead.

A key that is in no table is an error, with the nearest known one suggested. Keys that start with
`x-` are left alone, but for `x-homeport` in a service. Nothing is silently ignored, and all
problems of a file are reported at once: `compose.yaml:10:23: services.web.ports[2]: …`.

## What Homeport decides

- **Restart.** A service without `restart` and without `deploy.restart_policy` is kept running, as
  in Swarm; a job, and a service that another waits for to complete, is started again after failures
  only. `deploy.restart_policy` wins over `restart`.
- **`depends_on`** orders the first start. `service_completed_successfully` also says that a service
  is meant to end.
- **Names.** Containers are named by Homeport. A service is found by its name, its
  `container_name` and its aliases on every network that it joins.
- **Networks.** A service that names none joins `default`. `driver: overlay` is made as a bridge on
  every node.
- **Bind sources.** An absolute path is a fact of nodes and passes as it is, with a notice. A
  relative path, or one below `~`, belongs to the machine that runs `apply`. If that machine is a
  node, the service is pinned there. If it is not, read-only sources travel as configs, up to
  {TREE_BYTES_MAX >> 20} MiB in at most {TREE_FILES_MAX} files per stack; the rest is refused.
- **Missing files.** Secrets, configs, env files and build contexts that are named and not there are
  listed by `plan --offline` and refused by `apply`.
- **`build:`** is built by `apply --build` on the machine that runs it, under the name that `image`
  gives, or `<stack>-<service>`.
- **Limits given twice** (`cpus` and `deploy.resources.limits.cpus`, and so on) must agree, as in
  Compose.
"""

_PLACING = """\

## Where tasks go

A **fact** of a node is `node.id`, `node.hostname`, `node.role`, `node.platform.os`,
`node.platform.arch`, `node.labels.…` or `engine.labels.…`.

- **Constraints** (`deploy.placement.constraints`) are Swarm's and some more:
  `node.labels.disk == ssd`, `!= ssd`, `in (ssd, nvme)`, `not in (hdd)`, `exists`, `not exists`,
  `< 15`, `> 2.5`, `=~ pi[0-9]+`, `!~ .*-old`. `<` and `>` compare decimal numbers; `=~` takes a
  regular expression that fits the whole fact, without look-around, without repeated groups and
  with few repetitions, since it runs in the scheduler. A fact that a node lacks equals nothing:
  `!=`, `not in`, `not exists` and `!~` hold of it.
- **`prefer`** lists constraints that are only liked, with a `weight` of 1 to 100, or of -1 to -100
  for a dislike: `{where: node.labels.disk == ssd, weight: 50}`.
- **`spread`** keeps a service even over the values of a fact: `{over: node.labels.zone,
  max_skew: 1}` lets no zone have more than one task more than the zone with the fewest. With a
  `weight` it is a wish, without one it is a rule. Nodes that lack the fact are left out.
- **`near`** and **`apart`** speak of other services of the file, of `STACK/SERVICE`, or of all that
  have a label (`{label: tier=front}`, from `deploy.labels`): on the same node, or with `over:
  node.labels.zone` in the same zone. A service apart from itself runs once in each. With a
  `weight` it is a wish.
- **Taints** keep tasks from a node (`homeport node update NODE --taint KEY=VALUE:EFFECT`): `avoid`
  only if another node will do, `refuse` in any case, `evict` also those that are there.
  **`tolerations`** name the taints that do not count: `gpu` any of that key, `gpu=yes` of that
  value, `gpu:refuse` of that effect, `*` all.
- **`strategy`**: `spread` prefers the node with the most room, `binpack` the one with the least.
- **Devices.** A path under `devices:` is on some nodes only, and tasks go there, so far as agents
  list such paths (docs/operations.md). Serial ports and accelerators are taken alone, everything
  else is used side by side. `x-homeport.device` asks for devices by what they are, one or a list:
  `/dev/serial/by-id/…`, `usb:10c4:ea60`, a kind (`gpu`, `serial`, `video`…), or a map of these
  with `vendor`, `model` (`"*3060"`), `count` (a number or `all`), and either `share` (half a GPU:
  0.5), `shared: true` (not counted), or neither: taken alone. It appears in the container as on
  the machine, or at `target`.
- **GPUs** of `gpus:` and of `reservations.devices` with the capability `gpu` are whole ones, and
  nvidia's unless `driver` says otherwise. `generic_resources` count down what nodes have.
- **Bind sources** with `create_host_path: false` need a node that has the path, so far as its agent
  lists it.
- **Priority.** Higher ones are placed first. With `preempts: true` a service that finds no room has
  tasks of lower priority ended: as few as will do, of the lowest priority, and `plan` says which
  (docs/placement.md). `min_replicas` of a service are left running, and `preemptible: false` keeps
  all of it. Exclusive and pinned tasks stay, unless theirs says `preemptible: true`; so does what
  the service depends on.
"""

_FILES = f"""\

## How files are read

- Files: `-f` as often as wanted, else `COMPOSE_FILE`, else `compose.yaml`, `compose.yml`,
  `docker-compose.yml` or `docker-compose.yaml` here or in a directory above, with its `.override`
  file. `include` and `extends` read local files only.
- Name: `-p`, else `COMPOSE_PROJECT_NAME`, else `name:`, else the directory's name.
- Variables: the shell's win over those of `.env` beside the first file, or of `--env-file`. Forms:
  `$VAR ${{VAR}} ${{VAR:-d}} ${{VAR-d}} ${{VAR:?e}} ${{VAR?e}} ${{VAR:+r}} ${{VAR+r}}`,
  nested too, and `$$` for a dollar. A variable that is not set counts as empty, with a notice.
- Merging is Compose's: maps by key, lists appended, mounts by target, `command`, `entrypoint` and
  `healthcheck.test` replaced; `!reset` and `!override` work.
- Profiles: `--profile`, else `COMPOSE_PROFILES`; `*` is all of them.
- YAML is read as Compose's own parser does: `22:22` and `no` are text, `0123` is octal.

So that no file can do harm, a file has at most {reader.BYTES_MAX >> 20} MiB,
{reader.LINES_MAX:,} lines, {reader.NODES_MAX:,} values (aliases counted in full),
{reader.ALIASES_MAX} aliases and {reader.DEPTH_MAX} levels; a file of variables has at most
{dotenv.LINES_MAX:,} lines; variables make at most {interpolation.CHARACTERS_MAX >> 20} MiB of text;
a service publishes at most {quantities.PORTS_MAX:,} ports, a stack {PORTS_OF_STACK_MAX:,}; there
are at most {REPLICAS_MAX:,} replicas. Keys are text and given once; control characters, direction
marks, unknown tags and a second YAML document are refused.
"""


def page() -> str:
    """The whole page, as Markdown."""
    parts = [_HEAD, _PLACING, _FILES]
    for title, rows in _SECTIONS:
        parts.append(f"\n## {title}\n\n| key | standing | becomes, or why not | shown by |\n")
        parts.append("| --- | --- | --- | --- |\n")
        parts.extend(_line(row) for row in rows)
    return "".join(parts)


def _line(row: Row) -> str:
    sentence = ". ".join(part for part in (row.note, row.way_out) if part)
    field = f"`{row.field}`" if row.field else ""
    test = f"`{row.test.rpartition('/')[2]}`" if row.test else ""
    text = ": ".join(part for part in (field, sentence) if part).replace("|", "\\|")
    return f"| `{row.path}` | {row.standing.value} | {text} | {test} |\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(page())
