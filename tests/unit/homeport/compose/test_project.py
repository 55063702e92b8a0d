"""Which files, which variables, which name, which profiles; include and extends."""

import io

import pytest

from tests.unit.homeport.compose.conftest import Project

WEB = "services:\n  web: {image: nginx}\n"


def names(project: Project, *files: str, **options: object) -> list[str]:
    return [service.name for service in project.load(None, *files, **options).stack.services]


# ------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    "name", ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"]
)
def test_the_usual_names_are_found_here(project: Project, name: str) -> None:
    assert names(project.write({name: WEB})) == ["web"]


def test_compose_yaml_comes_before_the_older_names(project: Project) -> None:
    project.write({"compose.yaml": WEB, "docker-compose.yml": WEB.replace("web", "old")})
    assert names(project) == ["web"]


def test_a_file_is_found_in_a_directory_above(project: Project) -> None:
    project.write({"compose.yaml": WEB, "a/b/x": ""})
    loaded = project.load(directory=str(project.directory / "a/b"))
    assert loaded.stack.name == "lab"


def test_no_file_anywhere_is_said(project: Project) -> None:
    (problem,) = project.problems()
    assert "there is no Compose file here or in a directory above. Name one with -f" in problem


def test_an_override_is_laid_over_by_default(project: Project) -> None:
    override = "services:\n  web: {user: me}\n"
    project.write({"compose.yaml": WEB, "compose.override.yaml": override})
    assert project.load().stack.services[0].container.user == "me"
    assert project.load(None, "compose.yaml").stack.services[0].container.user == ""


def test_a_named_file_that_is_absent_is_said_once(project: Project) -> None:
    assert project.problems(None, "x.yaml") == ["x.yaml: there is no file x.yaml"]


def test_compose_file_names_files(project: Project) -> None:
    project.write({"a.yaml": WEB, "b.yaml": "services:\n  api: {image: nginx}\n"})
    assert names(project, environment={"COMPOSE_FILE": "a.yaml:b.yaml"}) == ["api", "web"]
    project.write({".env": "COMPOSE_FILE=b.yaml\n"})
    assert names(project) == ["api"]


def test_a_file_comes_from_standard_input(project: Project) -> None:
    loaded = project.load(None, "-", standard_input=io.BytesIO(WEB.encode()))
    assert loaded.stack.name == "lab"
    (problem,) = project.problems(None, "-", standard_input=io.BytesIO(b"a: b: c"))
    assert problem.startswith("<stdin>:1:5: this is not YAML")


def test_devices_and_pipes_are_not_read(project: Project) -> None:
    assert "is a device, a pipe or a socket" in project.problems(None, "/dev/zero")[0]


def test_a_link_to_a_file_is_read(project: Project) -> None:
    project.write({"real.yaml": WEB})
    (project.directory / "compose.yaml").symlink_to("real.yaml")
    assert names(project) == ["web"]


# -------------------------------------------------------------------------------------- name


def test_name(project: Project) -> None:
    """The stack's name, by rising precedence."""
    project.write(WEB)
    assert project.load().stack.name == "lab"
    project.write("name: from-${WHERE:-file}\n" + WEB)
    assert project.load().stack.name == "from-file"
    project.write({".env": "COMPOSE_PROJECT_NAME=from-dotenv\n"})
    assert project.load().stack.name == "from-dotenv"
    environment = {"COMPOSE_PROJECT_NAME": "from-shell"}
    assert project.load(environment=environment).stack.name == "from-shell"
    assert project.load(environment=environment, project_name="given").stack.name == "given"


def test_a_directorys_name_is_made_fit(project: Project) -> None:
    project.write({"_My Lab.2/compose.yaml": WEB})
    assert project.load(None, "_My Lab.2/compose.yaml").stack.name == "mylab2"


@pytest.mark.parametrize("name", ["My", "-a", "a/b", "a b", "x" * 64, "a.b"])
def test_a_bad_name_is_refused(project: Project, name: str) -> None:
    (problem,) = project.problems(f'name: "{name}"\n{WEB}')
    assert problem.startswith("compose.yaml:1:7: name: ")
    assert "cannot be the name of a stack" in problem


def test_the_name_is_a_variable_too(project: Project) -> None:
    project.write("name: me\nservices:\n  web: {image: '${COMPOSE_PROJECT_NAME}'}\n")
    assert project.load().stack.services[0].container.image == "me"


# --------------------------------------------------------------------------------- variables


def test_the_shell_wins_over_dotenv(project: Project) -> None:
    project.write({".env": "A=file\nB=file\n"})
    project.write("services:\n  web: {image: '$A-$B'}\n")
    assert project.load(environment={"A": "shell"}).stack.services[0].container.image == (
        "shell-file"
    )


def test_env_files_take_the_place_of_dotenv(project: Project) -> None:
    project.write({".env": "A=no\n", "one": "A=one\nB=one\n", "two": "B=two$A\n"})
    project.write("services:\n  web: {image: '$A-$B'}\n")
    loaded = project.load(env_files=["one", "two"])
    assert loaded.stack.services[0].container.image == "one-twoone"
    assert project.problems(None, env_files=["none"])[0] == "none: there is no file none"


def test_an_unset_variable_is_told_once(project: Project) -> None:
    loaded = project.load("services:\n  web:\n    image: a$X\n    user: $X\n")
    assert [str(notice) for notice in loaded.notices] == [
        "compose.yaml:3:12: services.web.image: the variable X is not set and counts as empty. "
        "Set it in the environment or in .env, or write ${X:-default}"
    ]


def test_keys_and_extensions_are_not_interpolated(project: Project) -> None:
    text = "x-a: ${\nservices:\n  web:\n    image: a\n    labels: {'$K': $V}\n"
    loaded = project.load(text, environment={"V": "v"})
    assert loaded.stack.services[0].container.labels == (("$K", "v"),)


def test_a_required_variable_is_a_problem_with_its_line(project: Project) -> None:
    assert project.problems("services:\n  web:\n    image: ${X:?say which}\n")[0] == (
        "compose.yaml:3:12: services.web.image: the variable X is required and has no value: "
        "say which"
    )


# ----------------------------------------------------------------------------------- include


def test_include(project: Project) -> None:
    """Short and long; paths, variables and `.env` of its own directory."""
    project.write(
        {
            "compose.yaml": "include:\n  - db/compose.yaml\n  - path: [c.yaml, c2.yaml]\n" + WEB,
            "db/compose.yaml": (
                "services:\n  db: {image: '$IMAGE', volumes: ['./d:/d']}\nvolumes: {v: }\n"
            ),
            "db/.env": "IMAGE=postgres\n",
            "c.yaml": "services:\n  cache: {image: redis}\n",
            "c2.yaml": "services:\n  cache: {user: me}\n",
        }
    )
    db, *_ = sorted(project.load().stack.services, key=lambda s: s.name != "db")
    assert names(project) == ["cache", "db", "web"]
    assert db.container.image == "postgres"
    assert db.container.mounts[0].source == str(project.directory / "db/d")
    assert project.load(environment={"IMAGE": "mine"}).stack.services[1].container.image == "mine"


def test_include_takes_a_directory_and_env_files(project: Project) -> None:
    project.write(
        {
            "compose.yaml": (
                "include:\n  - path: sub/x.yaml\n    project_directory: other\n"
                "    env_file: sub/vars\n"
            ),
            "sub/x.yaml": "services:\n  x: {image: '$I', volumes: ['./a:/a']}\n",
            "sub/vars": "I=img\n",
        }
    )
    container = project.load().stack.services[0].container
    assert container.image == "img"
    assert container.mounts[0].source == str(project.directory / "other/a")


def test_what_is_included_can_be_changed_by_a_later_file(project: Project) -> None:
    project.write(
        {
            "compose.yaml": "include: [a.yaml]\n",
            "a.yaml": WEB,
            "over.yaml": "services:\n  web: {user: me}\n",
        }
    )
    stack = project.load(None, "compose.yaml", "over.yaml").stack
    assert stack.services[0].container.user == "me"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        pytest.param(
            {"compose.yaml": "include: [a.yaml]\n" + WEB, "a.yaml": WEB.replace("nginx", "x")},
            "a.yaml:2:3: services.web: include[0] brings a second definition of this name "
            "(the other: compose.yaml:3:3)",
            id="a name that is taken",
        ),
        pytest.param(
            {"compose.yaml": "include: [a.yaml]\n", "a.yaml": "include: [compose.yaml]\n"},
            "a.yaml:1:11: include[0]: files go round in a circle: compose.yaml includes a.yaml "
            "includes compose.yaml",
            id="a circle",
        ),
        pytest.param(
            {"compose.yaml": "include: [none.yaml]\n"},
            "compose.yaml:1:11: include[0]: there is no file none.yaml",
            id="an absent file",
        ),
        pytest.param(
            {"compose.yaml": "include: ['https://example.org/c.yaml']\n"},
            "compose.yaml:1:11: include[0]: files from other machines are not fetched",
            id="a file from elsewhere",
        ),
    ],
)
def test_includes_that_are_refused(project: Project, files: dict[str, str], sentence: str) -> None:
    assert any(problem.startswith(sentence) for problem in project.problems(files))


def test_the_same_file_included_twice_is_one(project: Project) -> None:
    project.write(
        {
            "compose.yaml": "include: [a.yaml, b.yaml]\n",
            "a.yaml": "include: [c.yaml]\n",
            "b.yaml": "include: [c.yaml]\n",
            "c.yaml": WEB,
        }
    )
    assert names(project) == ["web"]


# ----------------------------------------------------------------------------------- extends


def test_extends(project: Project) -> None:
    """From the same file, from another one, and in a chain; paths of the other's directory."""
    project.write(
        {
            "compose.yaml": (
                "services:\n"
                "  web:\n    extends: {service: base, file: common/base.yaml}\n    user: me\n"
                "    environment: {B: 2}\n"
                "  copy: {extends: web, read_only: true}\n"
            ),
            "common/base.yaml": (
                "services:\n"
                "  root: {image: nginx, volumes: ['./c:/c'], environment: [A=1, B=1]}\n"
                "  base: {extends: {service: root}, cap_add: [NET_ADMIN]}\n"
            ),
        }
    )
    copy, web = project.load().stack.services
    assert (web.container.image, web.container.user) == ("nginx", "me")
    assert web.container.env == (("A", "1"), ("B", "2"))
    assert web.container.cap_add == ("NET_ADMIN",)
    assert web.container.mounts[0].source == str(project.directory / "common/c")
    assert copy.container.read_only
    assert copy.container.env == web.container.env


def test_a_common_file_may_be_extended_by_many(project: Project) -> None:
    many = "".join(f"  s{i}: {{extends: {{service: base, file: base.yaml}}}}\n" for i in range(300))
    project.write({"compose.yaml": "services:\n" + many, "base.yaml": WEB.replace("web", "base")})
    assert len(project.load().stack.services) == 300


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "services:\n  a: {extends: b}\n  b: {extends: a}\n",
            "services extend each other in a circle",
        ),
        (
            "services:\n  a: {extends: wbe}\n  web: {image: x}\n",
            "compose.yaml:2:16: services.a.extends: there is no service 'wbe' in compose.yaml. "
            "Did you mean `web`?",
        ),
        ("services:\n  a: {extends: {file: x}}\n", "extends needs the name of a service"),
        (
            "services:\n  a: {extends: {service: x, file: none.yaml}}\n",
            "compose.yaml:2:35: services.a.extends: there is no file none.yaml",
        ),
        (
            "services:\n"
            + "".join(f"  s{i}: {{extends: s{i + 1}}}\n" for i in range(20))
            + "  s20: {image: x}\n",
            "extends follow deeper than 16",
        ),
    ],
)
def test_extends_that_are_refused(project: Project, text: str, sentence: str) -> None:
    assert any(sentence in problem for problem in project.problems(text))


# ---------------------------------------------------------------------------------- profiles


PROFILES = (
    "services:\n"
    "  web: {image: a}\n"
    "  debug: {image: a, profiles: [dev, test]}\n"
    "  backup: {image: a, profiles: [ops]}\n"
)


def test_profiles(project: Project) -> None:
    """None, some, by variable, all."""
    project.write(PROFILES)
    assert names(project) == ["web"]
    assert names(project, profiles=["dev"]) == ["debug", "web"]
    assert names(project, environment={"COMPOSE_PROFILES": "test,ops"}) == [
        "backup", "debug", "web",
    ]  # fmt: skip
    assert names(project, profiles=["*"]) == ["backup", "debug", "web"]
    assert names(project, profiles=["dev"], environment={"COMPOSE_PROFILES": "ops"}) == [
        "debug", "web",
    ]  # fmt: skip


def test_a_dependency_in_an_inactive_profile_is_refused_unless_optional(project: Project) -> None:
    text = PROFILES + "  app: {image: a, depends_on: {debug: {condition: service_started%s}}}\n"
    (problem,) = project.problems(text % "")
    assert "the service debug is in a profile that is not active. Activate it with --profile" in (
        problem
    )
    stack = project.load(text % ", required: false").stack
    assert stack.services[0].depends_on == ()


def test_no_active_service_is_said(project: Project) -> None:
    (problem,) = project.problems("services:\n  a: {image: x, profiles: [p]}\n")
    assert "no service is in an active profile" in problem


def test_only_what_is_used_is_made(project: Project) -> None:
    loaded = project.load(
        WEB + "networks: {n: }\nvolumes: {v: }\nconfigs: {c: {content: x}}\n"
        "secrets: {s: {file: none}}\n"
    )
    stack = loaded.stack
    assert [n.name for n in stack.networks] == ["default"]
    assert (stack.volumes, stack.files, loaded.missing) == ((), (), ())
    assert len([n for n in loaded.notices if "no active service uses this" in n.message]) == 4
