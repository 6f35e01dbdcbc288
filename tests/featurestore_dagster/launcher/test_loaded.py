"""What counts as a change of the code that a process has loaded."""

import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).parents[3]

# In a process of its own: the hook that notes what is read stays for a process's life.
SCRIPT = """
import os, sys
from pathlib import Path
from featurestore_dagster.launcher.loaded import LoadedFiles

here = Path(sys.argv[1])
sys.path.insert(0, str(here))
files = LoadedFiles()
with files.recorded():
    import code_of_mine
    (here / "settings.env").read_text()
    os.listdir(here)
    (here / "missing.env").exists() or (here / "other.env").read_text()


def after(change):
    change()
    found = files.changed()
    return Path(found).name if found else ""


print(after(lambda: None))
print(after(lambda: (here / "result.parquet").write_text("what a run wrote")))
print(after(lambda: (here / "settings.env").write_text("a=1")))  # again, and the same
print(after(lambda: (here / "unread.txt").write_text("never read")))
print(after(lambda: (here / "new.py").write_text("")))
(here / "new.py").unlink()
print(after(lambda: (here / "settings.env").write_text("a=2")))
(here / "settings.env").write_text("a=1")
print(after(lambda: (here / "code_of_mine.py").write_text("X = 22")))
(here / "code_of_mine.py").unlink()
print(after(lambda: None))
"""


def test_code_and_what_it_reads_counts_and_what_runs_write_does_not(tmp_path: Path) -> None:
    (tmp_path / "code_of_mine.py").write_text("X = 1")
    for name, text in (("settings.env", "a=1"), ("other.env", ""), ("unread.txt", "")):
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=TREE, capture_output=True, text=True, timeout=100, check=True
    )
    *nothing, directory, settings, code, gone = done.stdout.split("\n")[:-1]
    assert nothing == ["", "", "", ""]
    assert (directory, settings, code, gone) == (tmp_path.name, "settings.env", "code_of_mine.py", "code_of_mine.py")
