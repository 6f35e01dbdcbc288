"""`featurestore run`"""

from importlib import import_module

import pytest

from featurestore_cli.commands.run import PROCESSES
from featurestore_cli.main import main


@pytest.mark.parametrize("name", PROCESSES)
def test_every_process_has_a_main(name: str) -> None:
    assert callable(import_module(PROCESSES[name]).main)


def test_a_process_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as usage:
        main(["run", "kafak"])
    assert usage.value.code == 2
    assert "choose from 'database', 'kafka', 'grpc', 'generator'" in capsys.readouterr().err
