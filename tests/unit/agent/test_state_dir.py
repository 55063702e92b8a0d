"""The state directory: one agent at a time, an identity that is whole, secrets for nobody else."""

import pytest

from agent.identity import Identity
from agent.state_dir import IdentityFile, SecretFiles, StateDir, StateDirBusy


def test_a_second_agent_is_refused_until_the_first_is_gone(tmp_path) -> None:
    first = StateDir(tmp_path / "agent")
    with pytest.raises(StateDirBusy, match="another agent uses"):
        StateDir(tmp_path / "agent")
    first.close()
    StateDir(tmp_path / "agent").close()


def test_the_identity_is_kept(tmp_path) -> None:
    file = IdentityFile(tmp_path / "identity.json")
    assert file.load() is None
    identity = Identity(request_id="r", node_id="n1", schedulers=("a:1", "b:2"))
    file.save(identity)
    assert file.load() == identity


def test_a_damaged_identity_is_told_and_not_replaced(tmp_path) -> None:
    path = tmp_path / "identity.json"
    path.write_text('{"node_id": 3')
    with pytest.raises(ValueError, match="damaged"):
        IdentityFile(path).load()


def test_secrets_are_for_the_agent_alone(tmp_path) -> None:
    secrets = SecretFiles(tmp_path / "secrets")
    assert secrets.get("d1") is None
    secrets.put("d1", b"sesame")
    secrets.put("d1", b"sesame")
    assert secrets.get("d1") == b"sesame"
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    secrets.drop("d1")
    secrets.drop("d1")
    assert secrets.get("d1") is None
