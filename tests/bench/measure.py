"""Running one command and measuring it: wall time, CPU time and memory of its whole tree of processes.

CPU is what wait4 reports of the command and of every descendant that was waited for; both programs wait for theirs. Memory is
the sum of VmHWM over all processes of the tree, each at its own highest, as a sampler reads it from /proc every few
milliseconds. So two processes that share a page count it twice, for both programs alike.
"""

import os
import pwd
import subprocess
import threading
import time
from dataclasses import dataclass

SAMPLE_SECONDS = 0.01


@dataclass
class Run:
    wall: float
    cpu: float
    user: float
    """The part of `cpu` that is not the kernel's."""
    memory: float
    """MiB"""
    output: str
    traffic: object = None
    """What it asked of an object store, where there is one, and with it the archive_command meanwhile."""
    archived: int = 0
    """Segments that were archived meanwhile."""


def server_user():
    """The user that servers and both programs run as; None for ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise SystemExit("bench: no user postgres or nobody")


def as_server_user():
    user = server_user()
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def environment():
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "HIGHWATER"))}
    return {**clean, "LC_ALL": "C", "HOME": "/"}


def measure(command, log):
    """Runs a command that must succeed. Its output goes into the file `log`."""
    with open(log, "wb") as output:
        begin = time.monotonic()
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", env=environment(), **as_server_user()
        )
        sampler = Sampler(child.pid)
        sampler.start()
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        sampler.finish()
    with open(log, errors="replace") as output:
        text = output.read()
    if child.returncode != 0:
        raise SystemExit(f"bench: {' '.join(map(str, command))} ended with {child.returncode}:\n{text}")
    # A command that ends between two samples is known by the kernel's own mark of its largest process.
    memory = max(sampler.total(), usage.ru_maxrss / 1024)
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_utime, memory, text)


class Sampler(threading.Thread):
    def __init__(self, root):
        super().__init__(daemon=True)
        self.root, self.stop, self.marks = root, threading.Event(), {}

    def run(self):
        while not self.stop.wait(SAMPLE_SECONDS):
            for pid in tree(self.root):
                self.marks[pid] = max(self.marks.get(pid, 0), high_water_mark(pid))

    def finish(self):
        self.stop.set()
        self.join()

    def total(self):
        return sum(self.marks.values()) / 1024


def tree(root):
    found, pending = [], [root]
    while pending:
        pid = pending.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as children:
                    pending.extend(map(int, children.read().split()))
        except OSError:
            pass  # It has ended since it was listed.
    return found


def high_water_mark(pid):
    """KiB; 0 once the process has ended."""
    try:
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


def warm_memory(directory, megabytes):
    """Writes and deletes this much: on a fresh virtual machine the first touch of memory is ten times slower."""
    path = os.path.join(directory, "warm")
    chunk = os.urandom(1 << 20)
    with open(path, "wb") as file:
        for _ in range(megabytes):
            file.write(chunk)
    os.remove(path)
    os.sync()
