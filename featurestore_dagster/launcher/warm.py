"""Dagster's run launcher, with cheap processes: a run is a fork of a process that has loaded the code already."""

import logging
import os
import socket
import subprocess
import sys
import threading
import time

import dagster as dg
import msgspec
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.origin import RepositoryPythonOrigin
from dagster._serdes import ConfigurableClassData, serialize_value

from featurestore.errors import SettingsError
from featurestore.settings import Settings
from featurestore_dagster.launcher.messages import MESSAGE_BYTES, Order, Reply
from featurestore_dagster.launcher.worker import WORKER_TAG, Worker

LOAD_WITHIN_S = 45.0  # run monitoring gives a run 60 s to start
FORK_WITHIN_S = 15.0
END_WITHIN_S = 5.0
TRY_AGAIN_S = 60.0  # after a zygote that did not come up

# Libraries that start threads when they are imported: numpy's for linear algebra, Arrow's for giving memory back.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}

log = logging.getLogger(__name__)


class ColdError(Exception):
    """There is no zygote for this run."""


class LostError(Exception):
    """The zygote is gone since it was asked for a process: whether the run has one is not known."""


class WarmRunLauncher(dg.DefaultRunLauncher):
    """Starts a run by a fork of a zygote, which is started with the first run and ends with this process.

    What cannot be started so is started the stock way, and says why on the run's page and in the log. A run's process
    does not depend on the zygote, nor on this one: it is known by a tag of the run, so that any process of the machine
    can tell whether it is alive, and end it. With FEATURESTORE_DAGSTER_LAUNCHER=stock everything starts the stock way.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data)
        launcher = Settings.from_env(os.environ).dagster.launcher  # noqa: TID251  # made by Dagster: an entry point
        if launcher not in ("warm", "stock"):
            raise SettingsError(f"FEATURESTORE_DAGSTER_LAUNCHER: {launcher!r} is neither warm nor stock")
        self._is_stock = launcher == "stock"
        self._zygotes: dict[str, _Zygote] = {}
        self._cold_until: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()
        self._registered = threading.Event()

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        super().register_instance(instance)
        self._registered.set()

    def launch_run(self, context: LaunchRunContext) -> None:
        self._registered.wait(FORK_WITHIN_S)  # the queue's threads share an instance that makes its launcher when asked
        run = context.dagster_run
        if self._is_stock or run.job_code_origin is None:
            super().launch_run(context)
            return
        location = run.remote_job_origin.location_name if run.remote_job_origin else ""
        try:
            with self._lock:
                self._fork(run.run_id, run.job_code_origin.repository_origin, location)
        except ColdError as error:
            self._say(run, f"Started as a new process, which takes seconds longer than a fork: {error}")
            super().launch_run(context)
        except LostError as error:
            self._say(run, f"{error}; if the run has no process, it fails when its time to start is over")

    def terminate(self, run_id: str) -> bool:
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or WORKER_TAG not in run.tags:
            return super().terminate(run_id)
        self._instance.report_run_canceling(run)
        return Worker.of(run.tags[WORKER_TAG]).interrupt()

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Of the runs that it forked; others are taken to be well: featurestore_dagster.liveness looks at those."""
        worker = Worker.of(run.tags[WORKER_TAG]) if WORKER_TAG in run.tags else None
        if worker is None or worker.is_alive:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"process {worker.pid} of this run is dead")

    def dispose(self) -> None:
        with self._lock:
            for zygote in self._zygotes.values():
                zygote.close()
            self._zygotes.clear()

    def _fork(self, run_id: str, origin: RepositoryPythonOrigin, location: str) -> None:
        """Have the run forked by the zygote of its code; a zygote that is gone, or has old code, is replaced once."""
        key = serialize_value(origin)
        why = ""
        for _ in range(2):
            zygote = self._zygotes.pop(key, None) or self._started(key, origin, location)
            reply = zygote.fork(run_id)
            if reply is not None and not reply.stale:
                self._zygotes[key] = zygote
                if reply.refused:
                    raise ColdError(reply.refused)
                return
            zygote.close()
            why = f"{reply.stale} has changed" if reply else "the old one died"
            log.info("a new zygote for %s: %s", location, why)
        raise ColdError(f"two zygotes were of no use; {why}")

    def _started(self, key: str, origin: RepositoryPythonOrigin, location: str) -> "_Zygote":
        until, reason = self._cold_until.get(key, (0.0, ""))
        if time.monotonic() < until:
            raise ColdError(reason)
        instance = serialize_value(self._instance.get_ref())
        try:
            return _Zygote(origin.executable_path, Order(instance=instance, repository=key, location=location))
        except (ColdError, OSError) as error:
            self._cold_until[key] = (time.monotonic() + TRY_AGAIN_S, str(error))
            raise ColdError(str(error)) from error

    def _say(self, run: dg.DagsterRun, text: str) -> None:
        log.warning("run %s: %s", run.run_id, text)
        self._instance.report_engine_event(text, run, cls=type(self))


class _Zygote:
    """The other end of featurestore_dagster.launcher.zygote."""

    def __init__(self, executable: str, order: Order) -> None:
        """Start it and wait until it has loaded the code.

        Raises:
            ColdError: it has not, and why.
            OSError: no such program, or no memory.
        """
        if sys.platform != "linux":
            raise ColdError("forks of a loaded process are safe on Linux only")
        # No path, no address: a socket that nobody else can open, and that closes with either process.
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [executable, "-m", "featurestore_dagster.launcher.zygote", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env={**ONE_THREAD, **os.environ},  # noqa: TID251  # as the stock launcher's processes: all of it
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches the daemon, and the runs when it tells them
            )
        try:
            self._socket.settimeout(LOAD_WITHIN_S)
            self._socket.send(msgspec.json.encode(order))
            reply = self._receive()
        except TimeoutError:
            self.close()
            raise ColdError(f"its code was not loaded within {LOAD_WITHIN_S:g} s") from None
        except OSError as error:
            self.close()
            raise ColdError(f"its zygote does not take orders: {error}") from error
        if reply is None or reply.refused:
            self.close()
            raise ColdError(reply.refused if reply else f"its zygote ended, exit status {self._process.returncode}")

    def fork(self, run_id: str) -> Reply | None:
        """Ask for a process for the run; None if nobody could be asked.

        Raises:
            LostError: it was asked and did not answer.
        """
        try:
            self._socket.settimeout(FORK_WITHIN_S)
            self._socket.send(run_id.encode())
        except OSError:
            return None
        try:
            reply = self._receive()
        except OSError:
            reply = None
        if reply is None:
            self.close()
            raise LostError("the zygote was asked to fork this run and did not answer")
        return reply

    def close(self) -> None:
        """It ends when its socket closes; its runs go on."""
        self._socket.close()
        try:
            self._process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_WITHIN_S)

    def _receive(self) -> Reply | None:
        message = self._socket.recv(MESSAGE_BYTES)
        return msgspec.json.decode(message, type=Reply) if message else None
