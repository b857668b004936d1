import pytest

from utils.files import atomic_write


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "a.json"
    with atomic_write(path) as partial:
        partial.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half" and list(tmp_path.iterdir()) == [path]


def test_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(OSError), atomic_write(path) as partial:
        partial.write_text("ha")
        raise OSError("No space left on device")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
