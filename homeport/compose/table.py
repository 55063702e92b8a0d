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
    parts = [_HEAD]
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
