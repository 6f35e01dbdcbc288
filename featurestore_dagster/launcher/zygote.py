"""A process that has loaded a code location, and forks itself for each run of it.

A new process spends seconds on importing what this one has imported; a fork spends none. It is started by the run
launcher, at the other end of a socket that no other process has: first it gets an `Order`, then the id of a run at a
time, and answers each with a `Reply`. It ends when the launcher is gone, or when a file that it has loaded is not as it
was: the next one loads the new code. Its runs go on.

It must have one thread only: a lock that another thread holds at the moment of a fork stays locked in the child for
ever. So nothing may connect or start threads while the code is loaded; where something does, it says so, and runs are
started the stock way.
"""

import gc
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from importlib import import_module
from pkgutil import iter_modules

import dagster as dg
import msgspec
from dagster._cli.api import _execute_run_command_body
from dagster._core.instance.ref import InstanceRef
from dagster._core.origin import RepositoryPythonOrigin
from dagster._serdes import deserialize_value
from dagster._utils.hosted_user_process import recon_repository_from_origin
from dagster._utils.interrupts import capture_interrupts

from featurestore_dagster import steps
from featurestore_dagster.launcher.loaded import LoadedFiles
from featurestore_dagster.launcher.messages import MESSAGE_BYTES, Order, Reply
from featurestore_dagster.launcher.worker import WORKER_TAG, Worker

# What runs import, but nothing at load does. Arrow looks for pandas, and takes half a second when it finds it.
IMPORTED_BY_RUNS = (
    "dagster._core.executor.in_process",
    "dagster._core.storage.legacy_storage",
    "dagster._core.storage.local_compute_log_manager",
    "featurestore.database.client",
    "featurestore.landing.zone",
    "featurestore.models.publish",
    "featurestore.offline.lake",
    "featurestore.online.redis_store",
    "pandas",
    "psutil",
    "pyarrow.acero",
    "pyarrow.dataset",
    "upath.implementations.local",
    *(module.name for module in iter_modules(steps.__path__, f"{steps.__name__}.")),
)

log = logging.getLogger(__name__)


def main(descriptor: int) -> None:
    """Load, then serve the launcher until it is gone."""
    with socket.socket(fileno=descriptor) as launcher:
        order = msgspec.json.decode(launcher.recv(MESSAGE_BYTES), type=Order)
        instance, files = deserialize_value(order.instance, InstanceRef), LoadedFiles()
        try:
            with files.recorded():
                _load(order, instance)
            refused = _threads()
        except Exception:  # noqa: BLE001  # the user's code may raise anything
            refused = f"the code does not load: {traceback.format_exc(limit=-3)}"
        _send(launcher, Reply(refused=refused))
        if not refused:
            _serve(launcher, instance, files)


def _load(order: Order, instance: InstanceRef) -> None:
    with dg.DagsterInstance.from_ref(instance) as opened:  # closed again: forks must not share a connection
        opened.inject_env_vars(order.location)
    recon_repository_from_origin(deserialize_value(order.repository, RepositoryPythonOrigin)).get_definition()
    for module in IMPORTED_BY_RUNS:
        with suppress(ImportError):
            import_module(module)


def _serve(launcher: socket.socket, instance: InstanceRef, files: LoadedFiles) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a child that has ended leaves nothing behind
    gc.collect()
    gc.freeze()  # a collection would write to, and so copy, memory that forks share
    while run_id := launcher.recv(MESSAGE_BYTES).decode():
        if path := files.changed():
            _send(launcher, Reply(stale=path))
            return
        refused = _threads()
        if not refused:
            try:
                if os.fork() == 0:
                    _work(run_id, instance, launcher)
            except OSError as error:
                refused = f"no process can be forked: {error}"
        _send(launcher, Reply(refused=refused))


def _work(run_id: str, instance: InstanceRef, launcher: socket.socket) -> None:
    """The child: do the run as `dagster api execute_run` does, and end without what others have registered at exit."""
    try:
        launcher.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if "numpy.random" in sys.modules:  # Python's own generator does it by itself
            sys.modules["numpy.random"].seed()
        with capture_interrupts(), dg.DagsterInstance.from_ref(instance) as opened:
            opened.add_run_tags(run_id, {WORKER_TAG: Worker.this().tag})
            run = opened.get_run_by_id(run_id)
            if run is not None and run.status is dg.DagsterRunStatus.CANCELING:
                opened.report_run_canceled(run, "The run was cancelled before it began.")
            else:
                _execute_run_command_body(run_id, opened, lambda event: None, set_exit_code_on_failure=False)
    except BaseException:
        log.exception("run %s did not begin, or not end, as it should", run_id)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _threads() -> str:
    """What is wrong about this process's threads; empty if there is one."""
    count = len(os.listdir("/proc/self/task"))
    if count == 1:
        return ""
    names = ", ".join(thread.name for thread in threading.enumerate()[1:]) or "not Python's own"
    return f"loading the code started {count - 1} threads ({names}); start them when a run needs them"


def _send(launcher: socket.socket, reply: Reply) -> None:
    launcher.send(msgspec.json.encode(reply))


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    main(int(sys.argv[1]))
    os._exit(0)  # what the code has registered at exit may be of use to its runs, which go on
