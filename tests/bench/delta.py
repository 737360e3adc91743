"""Restores over what is there: a cluster of which one part in a hundred changed, and a restore that was killed at four fifths."""

import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from cluster import make_directory, own, run
from measure import as_server_user, environment, tree
from report import Row, Section

SHARE = 100
"""One row in so many changes, neighbours."""

KILLED_AT = 0.8


def written(root):
    """What a tree of processes has written so far, in bytes, as the kernel accounts it."""
    total = 0
    for pid in tree(root):
        try:
            with open(f"/proc/{pid}/io") as counts:
                total += sum(int(line.split()[1]) for line in counts if line.startswith("write_bytes:"))
        except OSError:
            pass  # It has ended since it was listed.
    return total


def kill_at(command, limit):
    """Starts a command and kills its processes as soon as they have written so much; whether they still ran."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             cwd="/", env=environment(), **as_server_user())
    while child.poll() is None:
        if written(child.pid) >= limit:
            for pid in tree(child.pid):
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    pass
            return child.wait() != 0
        time.sleep(0.002)
    return False


def change(bench, data):
    """Lets a server work in a restored directory until a part of it has changed, and leaves it stopped and in the page cache."""
    socket = tempfile.mkdtemp(prefix="hwbench-", dir="/tmp")
    own(socket)
    log = f"{bench.scratch}/changed.log"
    try:
        run([f"{bench.bin}/pg_ctl", "start", "-D", data, "-w", "-t", "300", "-l", log, "-o",
             f"-c unix_socket_directories={socket} -c port=5432 -c archive_mode=off -c autovacuum=off"])
        try:
            while bench.sql("select pg_is_in_recovery()", socket) == "t":
                time.sleep(0.05)
            last = int(bench.sql("select max(id) from events", socket))
            bench.sql(f"delete from events where id > {last // 2} and id <= {last // 2 + last // SHARE}", socket)
        finally:
            run([f"{bench.bin}/pg_ctl", "stop", "-D", data, "-w", "-m", "fast"])
    finally:
        for left in glob.glob(f"{socket}/*"):
            os.remove(left)
        os.rmdir(socket)
    for directory, _, names in os.walk(data):
        for name in names:
            with open(os.path.join(directory, name), "rb") as file:
                while file.read(1 << 20):
                    pass
    os.sync()


def fetched(done):
    return json.loads(done.output)["fetched_bytes"]


def delta(bench, tools, pairs):
    from groups import both, measure_turn, remove, say, size_of, spread, turns

    programs = both(bench, tools.binary)
    log = f"{bench.scratch}/command.log"
    for program in programs:
        bench.archive_by(program.archive_command())
        run(program.backup())
    restores = make_directory(f"{bench.scratch}/restores")
    spread(restores)
    full, changed, resumed = Row("restore"), Row("`--delta`, 1 % changed"), Row("killed at 80 %, resumed")
    again = []
    for pair, program in turns(programs, pairs):
        target = make_directory(f"{restores}/{pair}-{program.name}") + "/data"
        measure_turn(full, pair, program, program.restore(target), log)
        os.sync()
        size = size_of(target)
        change(bench, target)
        measure_turn(changed, pair, program, program.restore(target, delta=True), log)
        remove(target)
        target = make_directory(f"{restores}/{pair}-{program.name}-killed") + "/data"
        if not kill_at(program.restore(target), KILLED_AT * size):
            sys.exit("bench: a restore that was to be killed came to its end")
        os.sync()
        done = measure_turn(resumed, pair, program, program.resume(target), log)
        if program.name == "Highwater" and pair > 0:
            again.append(fetched(done) / size_of(glob.glob(f"{program.repository}/clusters/*/*/packs")[0]))
        remove(target)
    ours = programs[-1].name

    def median(row):
        return statistics.median(run.wall for run in row.runs[ours])

    say(f"a delta takes {median(changed) / median(full):.2f} of a restore")
    notes = [
        f"A delta restore takes {median(changed) / median(full):.2f} × the wall time of a full one; its directory was at work before, and is in the page "
        "cache for both programs.",
        f"Fetched again after the kill: {statistics.median(again):.1%} of what the repository holds of the backup ({max(again):.1%} at most).",
    ]
    return Section("delta", programs, [full, changed, resumed], notes, bench)
