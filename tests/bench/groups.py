"""What is measured: each group runs both programs turn about and gives rows for the report."""

import glob
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from statistics import median

from cluster import make_directory
from disk import write_alone
from delta import delta
from measure import as_server_user, environment, measure
from objectstore import ObjectStore
from programs import Highwater, PgBackRest
from report import Row, Section


@dataclass
class Tools:
    """The programs that ./dev has built."""

    binary: str
    codec_bound: str
    seal_speed: str
    seaweedfs: str


def say(text):
    print(f"bench: {text}", file=sys.stderr)


def both(bench, binary, objects=None):
    return [PgBackRest(bench, objects), Highwater(bench, binary, objects)]


def turns(programs, pairs):
    """(pair, program), the order reversed in every second pair; pair 0 is the warm-up."""
    for pair in range(pairs + 1):
        for program in programs if pair % 2 == 0 else reversed(programs):
            yield pair, program


def remove(path):
    shutil.rmtree(path, ignore_errors=True)
    # What is still dirty of the last run would be written in the next one's time.
    os.sync()


def spread(directory):
    """Where ext4 keeps no journal it passes over every inode that was deleted in the last minutes, for each file that it makes
    (`recently_deleted`), and would charge a restore for the removal of those before it. With this attribute each directory made in
    `directory` begins in a part of the disk of its own. Other filesystems need and know nothing of it."""
    subprocess.run(["chattr", "+T", directory], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def size_of(path):
    found = [os.path.join(directory, name) for directory, _, names in os.walk(path or "/nonexistent") for name in names]
    return sum(os.path.getsize(file) for file in found)


def measure_turn(row, pair, program, command, log):
    before = program.objects and program.objects.traffic()
    done = measure(command, log)
    done.traffic = before and program.objects.traffic() - before
    done.memory += size_of(program.spool) / (1 << 20)
    cpu = f"CPU {done.cpu:.2f} s ({done.user:.2f} s of it user)"
    say(f"{row.what} {pair} {program.name}: {done.wall:.2f} s, {cpu}, {done.memory:.0f} MiB")
    if pair > 0:
        row.add(program.name, done)
    return done


def backup(bench, tools, pairs):
    programs = both(bench, tools.binary)
    rows = there_and_back(bench, programs, pairs)
    bound = codec_alone(bench, tools.codec_bound, pairs)
    plain = size_of(f"{bench.data}/base")
    alone = sorted(write_alone(bench, plain) for _ in range(pairs))
    notes = [
        f"{plain / 1e9:.2f} GB of data files. LZ4 alone on two threads, neither reading, sealing nor writing: {bound}.",
        f"The disk alone, as many bytes written past the page cache, 16 MiB at once: {alone[len(alone) // 2]:.2f} s "
        f"({alone[0]:.2f} s to {alone[-1]:.2f} s).",
        "Stored by one full backup and its WAL: "
        + ", ".join(f"{program.name} {size_of(program.repository) / (pairs + 1) / 1e9:.2f} GB" for program in programs)
        + ".",
    ]
    return Section("backup", programs, rows, notes, bench)


def s3(bench, tools, pairs):
    with ObjectStore(bench, tools.seaweedfs) as objects:
        programs = both(bench, tools.binary, objects)
        rows = there_and_back(bench, programs, pairs)
    taken, _ = rows
    stored = {program: median(run.traffic.received for run in taken.runs[program.name]) / 1e9 for program in programs}
    for_each_gb = {
        row.what: ", ".join(
            f"{program.name} {median(run.traffic.requests for run in row.runs[program.name]) / stored[program]:.0f}"
            for program in programs
        )
        for row in rows
    }
    notes = [
        "SeaweedFS on the loopback interface, TLS, on the same cores: its own CPU is in no number, and in every wall time.",
        "Requests for each GB stored, as the service counts them, those of the archive_command among them: "
        + "; ".join(f"{what} {counts}" for what, counts in for_each_gb.items())
        + ".",
    ]
    return Section("s3", programs, rows, notes, bench)


def there_and_back(bench, programs, pairs):
    """A full backup and its restore, by both programs, and what they brought back compared."""
    log = f"{bench.scratch}/command.log"
    taken, restored = Row("full backup"), Row("restore")
    for pair, program in turns(programs, pairs):
        bench.archive_by(program.archive_command())
        bench.sql("checkpoint")
        measure_turn(taken, pair, program, program.backup(), log)
        os.sync()

    targets = {}
    restores = make_directory(f"{bench.scratch}/restores")
    spread(restores)
    for pair, program in turns(programs, pairs):
        remove(targets.get(program.name, ""))
        target = make_directory(f"{restores}/{pair}-{program.name}") + "/data"
        measure_turn(restored, pair, program, program.restore(target), log)
        targets[program.name] = target
        os.sync()
    say("comparing the restored clusters")
    if not bench.compare_restored(*targets.values()):
        sys.exit("bench: the two restored clusters differ")
    for target in targets.values():
        remove(target)
    return [taken, restored]


def codec_alone(bench, codec_bound, pairs):
    walls = []
    for _ in range(min(pairs, 3)):
        done = subprocess.run([codec_bound, f"{bench.data}/base", "2"], capture_output=True, text=True, check=True, cwd="/",
                              env=environment(), **as_server_user())
        walls.append(done.stdout.strip())
    return sorted(walls)[len(walls) // 2]


def push(bench, tools, pairs):
    programs = both(bench, tools.binary)
    log = f"{bench.scratch}/command.log"
    row = Row("one archive-push")
    segments = full_segments(bench, pairs + 1)
    for pair, program in turns(programs, pairs):
        measure_turn(row, pair, program, program.push(segments[pair]), log)
    bench.archive_by("/bin/true")
    note = f"Each segment holds {os.path.getsize(segments[0]) >> 20} MiB of records and page images of this load, all in the page cache."
    return Section("push", programs, [row], [note], bench)


def full_segments(bench, count):
    """This many segments full of WAL, of inserts and updates of a table that is gone again afterwards. They stay in pg_wal
    as long as archiving fails."""
    bench.archive_by("/bin/false")
    bench.sql("drop table if exists churn")
    bench.sql("create table churn (like events including all)")
    bench.sql("checkpoint")
    begin = bench.sql("select pg_walfile_name(pg_switch_wal())")
    whole = []
    # The first of them begins in the middle of what the switch ended.
    while len(whole) < count + 1:
        bench.sql("insert into churn (at, kind, amount, body, note) select at, kind, amount, body, note from events limit 20000")
        bench.sql("update churn set amount = amount + 1 where id % 50 = 7")
        now = bench.sql("select pg_walfile_name(pg_current_wal_lsn())")
        names = glob.glob(f"{bench.data}/pg_wal/" + "[0-9A-F]" * 24)
        whole = sorted(path for path in names if begin < os.path.basename(path) < now)
    bench.sql("drop table churn")
    return whole[1 : count + 1]


def pipeline(bench, tools, _pairs):
    """Compressing and sealing, opening and decompressing, by one thread, beside the codec alone; without a disk. The program
    itself gives the best of fifteen rounds."""
    say("pipeline")
    done = subprocess.run([tools.seal_speed], capture_output=True, text=True, check=True, env=environment())
    _, *rows = (line.split() for line in done.stdout.splitlines() if line.strip())
    lines = ["| codec | alone, in | sealed | of the codec's own | alone, out | opened | ratio |", "|---|---|---|---|---|---|---|"]
    for codec, compress, write, share, decompress, read, ratio in rows:
        lines.append(f"| {codec} | {compress} MB/s | {write} MB/s | {share} | {decompress} MB/s | {read} MB/s | {ratio} |")
    note = "Rows of a table, in frames of 1 MiB, one core. A restore takes the keyed digest of each extent besides."
    return Section("pipeline", [], [], [note], bench, lines)


ALL = {"backup": backup, "s3": s3, "push": push, "delta": delta, "pipeline": pipeline}
