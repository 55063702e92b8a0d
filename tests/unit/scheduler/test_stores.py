"""What `homeport store` says to whom it cannot help yet."""

import pytest

from scheduler import stores

pytestmark = pytest.mark.usefixtures("logs_as_before")

VERBS = ("migrate", "backup", "restore", "accept-restore", "clear")


def test_a_move_without_a_direction_is_not_begun(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HOMEPORT_SCHEDULER_CONFIG", raising=False)
    assert stores.main(["migrate", "--state-dir", str(tmp_path / "s")]) == stores.EX_CONFIG
    assert "--to etcd, or --to sqlite" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_an_example_and_what_each_option_means(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        stores.main([verb, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    example = said.partition("examples:")[2]
    assert f"homeport {verb}" in example or f"homeport store {verb}" in example
    options = stores._parser()._subparsers._group_actions[0].choices[verb]._actions
    assert [each.dest for each in options if not each.help] == []
