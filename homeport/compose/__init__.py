"""Compose files in, stacks out: `load()` translates a Compose project to a `StackSpec`.

    from homeport import compose

    try:
        compiled = compose.load(["compose.yaml"], machine=compose.Machine())
    except compose.Problems as wrong:
        for problem in wrong.problems:      # all of them at once, sorted by place
            print(problem)                  # file:line:column: path: sentence. Way out

`load(files, directory, environment, env_files, profiles, project_name, project_directory, machine,
standard_input)`: no files means COMPOSE_FILE, or compose.yaml looked for here and above with its
compose.override.yaml; `-` is standard input. `machine` says what the cluster knows of the machine
that runs this: `Machine()` without a cluster (`plan --offline`), `Machine(is_known=True)` when it
is not a node, `Machine(is_known=True, node=NAME)` when it is one. It decides about bind sources.

`Compiled` has the `stack`; `builds`, what `apply --build` builds; `notices`, what Homeport does
otherwise than Compose; and `missing`, files that are named and are not there: `plan` lists them,
`apply` refuses them. Nothing of a file is silently ignored: `rows.ROWS` is the table of all keys,
and docs/compose.md is made from it.

Only `files` reads anything; the rest are values and deciders. Importing this loads ruamel.yaml,
which takes its time: import it where it is used.
"""

from homeport.compose.build import BuildSecret, BuildSpec
from homeport.compose.compiler import Compiled
from homeport.compose.compiling import Machine
from homeport.compose.files import load
from homeport.compose.problems import Finding, Missing, Notice, Problem, Problems, Where

__all__ = [
    "BuildSecret",
    "BuildSpec",
    "Compiled",
    "Finding",
    "Machine",
    "Missing",
    "Notice",
    "Problem",
    "Problems",
    "Where",
    "load",
]
