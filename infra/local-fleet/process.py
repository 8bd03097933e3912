"""Processes that outlive the program that started them, known by a file with their id and start time."""
import os
import pathlib
import signal
import subprocess
import time


class Failure(Exception):
    """What went wrong, and the next step."""


def start_time(pid):
    """When a process started, in clock ticks since the machine did; None where there is none, or it has ended."""
    try:
        # After the name, which may hold anything, in its last parenthesis: the state is field 3, the start time field 22.
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


class Process:
    """A part's process. The file holds its id and start time: ids are used again, and only ours may be ended."""

    def __init__(self, folder, name):
        self.name = name
        self.file = folder / "pids" / name
        self.log = folder / "logs" / f"{name}.log"

    def pid(self):
        """The process's id while it runs."""
        try:
            pid, started = self.file.read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if start_time(pid) == started else None

    def start(self, command, environment=None, folder=None):
        """Starts it unless it runs."""
        if self.pid() is not None:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            try:
                # A session of its own: Ctrl-C in the terminal that ran `up` is not for it.
                child = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                         env={**os.environ, **(environment or {})}, cwd=folder, start_new_session=True)
            except OSError as error:
                raise Failure(f"{self.name} cannot be started: {error}") from error
        self.file.write_text(f"{child.pid} {start_time(child.pid)}\n")

    def wait_until(self, ready, seconds):
        """Waits until `ready` gives true."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.pid() is None:
                raise Failure(f"{self.name} ended; the end of its log {self.log}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise Failure(f"{self.name} does not answer after {seconds} s; the end of its log {self.log}:\n{self.tail()}")
            time.sleep(0.1)

    def ask(self):
        """Asks it to end (SIGTERM); its id where it ran."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
        return pid

    def stop(self, seconds):
        """Asks it to end, and kills it when it has not after so many seconds; whether it ran."""
        pid = self.ask()
        if pid is not None:
            deadline = time.monotonic() + seconds
            while self.pid() is not None and time.monotonic() < deadline:
                time.sleep(0.1)
            if self.pid() is not None:
                # With its children: it leads a group of its own.
                os.killpg(pid, signal.SIGKILL)
        self.file.unlink(missing_ok=True)
        return pid is not None

    def tail(self):
        """The end of its log."""
        try:
            return self.log.read_bytes()[-2000:].decode(errors="replace")
        except OSError:
            return ""
