"""`featurestore init`: a project that works as it is."""

import subprocess
import sys
from pathlib import Path

import pytest

from featurestore.errors import TerminalError
from featurestore.settings import Settings
from featurestore_cli.main import main
from tests.services import ENV

OWN = {name: value for name, value in ENV.items() if not name.startswith(("FEATURESTORE_", "DAGSTER_"))}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A fresh one, called my-shop."""
    assert main(["init", str(tmp_path / "my-shop")]) == 0
    return tmp_path / "my-shop"


def run(project: Path, *words: str) -> str:
    """What a program says there."""
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=project, env=OWN, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_tests_are_green_and_a_mistake_turns_one_red(project: Path) -> None:
    assert "2 passed" in run(project, "pytest", "-q", "-p", "no:cacheprovider")
    features = project / "my_shop" / "user.py"
    features.write_text(features.read_text().replace("debt / nullif", "debt * 2 / nullif"))
    with pytest.raises(AssertionError, match="1 failed"):
        run(project, "pytest", "-q", "-p", "no:cacheprovider")


def test_every_command_in_it_knows_the_project(project: Path) -> None:
    assert "debt_to_income" in run(project, "featurestore_cli.main", "features", "list")
    loads = "from my_shop.definitions import defs; print(*sorted(map(str, defs.resolve_all_asset_keys())))"
    script = project / "loads.py"
    script.write_text(f"import warnings; warnings.simplefilter('ignore'); {loads}")
    assert "features', 'credit" in run(project, "loads")


def test_nothing_in_it_names_this_machine(project: Path) -> None:
    for file in project.rglob("*"):
        if file.is_file():
            assert str(project.parent) not in file.read_text()
            assert "$" not in file.read_text()
    assert {path.name for path in project.iterdir()} == {
        *(".gitignore", "my_shop", "profiles.csv", "pyproject.toml", "tests", "workspace.yaml"),
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [("json", "there is a Python package 'json' already"), ("1st", "cannot be the name of a Python package")],
)
def test_a_name_that_cannot_be_a_package_is_refused(
    tmp_path: Path, name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / name)]) == 1
    assert message in capsys.readouterr().err


def test_nothing_is_overwritten(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(project)]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_a_pyproject_that_says_more_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.from_env({}).project == Settings().project
    Path("pyproject.toml").write_text('[tool.featurestore]\nproject = "a:B"\n')
    assert Settings.from_env({}).project == "a:B"
    assert Settings.from_env({"FEATURESTORE_PROJECT": "c:D"}).project == "c:D"
    Path("pyproject.toml").write_text('[tool.featurestore]\nprojekt = "a:B"\n')
    with pytest.raises(TerminalError, match=r"\[tool.featurestore\]: 'projekt' is not known"):
        Settings.from_env({})
