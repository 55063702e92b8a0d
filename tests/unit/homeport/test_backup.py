"""A backup is whole, or it is no backup."""

import io
import os
import stat
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from homeport import backup, backup_file
from homeport.backup import BackupDamaged, Header, Reader

HEADER = Header(cluster="home", incarnation=3, revision=40, schema=1, version="1.0", store="s")
ENTRIES = [("cluster", b"\0"), ("nodes/n1", b"x" * 300), ("ünïcode", b"")]
WHOLE = b"".join(backup.encode(HEADER, ENTRIES))

records = st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.binary()), max_size=20)


@given(records)
def test_what_was_saved_is_read_again(entries):
    reader = Reader(io.BytesIO(b"".join(backup.encode(HEADER, entries))))
    assert reader.header == HEADER
    assert list(reader.entries()) == entries


def read(data):
    reader = Reader(io.BytesIO(data))
    return list(reader.entries())


@given(st.integers(0, len(WHOLE) - 1))
def test_one_that_breaks_off_anywhere_is_refused(size):
    with pytest.raises(BackupDamaged):
        read(WHOLE[:size])


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_one_of_which_any_byte_differs_is_refused(place, difference):
    changed = bytearray(WHOLE)
    changed[place] ^= difference
    with pytest.raises(BackupDamaged):
        read(bytes(changed))


def test_what_stands_behind_the_end_is_noticed():
    with pytest.raises(BackupDamaged, match="behind its end"):
        read(WHOLE + b"\n")


def test_the_sentence_says_how_far_it_went():
    with pytest.raises(BackupDamaged, match="breaks off behind record 2"):
        read(WHOLE[:-50])


def test_a_newer_form_asks_for_the_newer_program():
    with pytest.raises(BackupDamaged, match="newer version of Homeport"):
        read(b"homeport-backup 2\n{}\n")


class TestFiles:
    def test_only_its_owner_may_read_it(self, tmp_path):
        old = os.umask(0)
        try:
            written = backup_file.write(tmp_path / "b", backup.encode(HEADER, ENTRIES))
        finally:
            os.umask(old)
        assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600
        assert (written.header, written.records) == (HEADER, 3)
        assert written.size_bytes == len(WHOLE)
        assert backup_file.read(tmp_path / "b") == (HEADER, ENTRIES)

    def test_one_that_is_there_is_written_over_by_word_only(self, tmp_path):
        path = tmp_path / "b"
        backup_file.write(path, backup.encode(HEADER, ENTRIES))
        newer = replace(HEADER, revision=41)
        with pytest.raises(FileExistsError, match="--force"):
            backup_file.write(path, backup.encode(newer, ENTRIES))
        backup_file.write(path, backup.encode(newer, ENTRIES), overwrite=True)
        assert backup_file.read(path)[0].revision == 41

    @pytest.mark.parametrize("left", [0, 1, 3])
    def test_a_source_that_fails_leaves_the_older_file_and_nothing_else(self, tmp_path, left):
        path = tmp_path / "b"
        backup_file.write(path, backup.encode(HEADER, ENTRIES))

        def failing():
            pieces = backup.encode(HEADER, ENTRIES)
            for _ in range(left):
                yield next(pieces)
            raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space"):
            backup_file.write(path, failing(), overwrite=True)
        assert [each.name for each in tmp_path.iterdir()] == ["b"]
        assert path.read_bytes() == WHOLE

    def test_what_arrives_damaged_is_not_kept(self, tmp_path):
        with pytest.raises(BackupDamaged):
            backup_file.write(tmp_path / "b", [WHOLE[:100], WHOLE[101:]])
        assert list(tmp_path.iterdir()) == []

    def test_the_sentence_names_the_file(self, tmp_path):
        (tmp_path / "b").write_bytes(WHOLE[:-1])
        with pytest.raises(BackupDamaged, match=str(tmp_path / "b")):
            backup_file.read(tmp_path / "b")


def test_where_nothing_can_be_written_the_name_that_was_asked_for_is_said(tmp_path):
    path = tmp_path / "nowhere" / "home.backup"
    with pytest.raises(FileNotFoundError) as raised:
        backup_file.write(path, backup.encode(HEADER, ENTRIES))
    assert raised.value.filename == str(path)
