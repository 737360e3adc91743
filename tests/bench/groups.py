"""What is measured: each group runs both programs turn about and gives rows for the report."""

import glob
import os
import shutil
import subprocess
import sys
import time
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
    pipeline_speed: str
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
    if program.objects:
        asked, archived = program.objects.traffic(), program.bench.archived()
    done = measure(command, log)
    if program.objects:
        done.traffic, done.archived = program.objects.traffic() - asked, program.bench.archived() - archived
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
        pushes = [requests_of_a_push(bench, program) for program in programs]
        # Or the last one's archive_command would ask for a service that is gone, for minutes, and no server stops meanwhile.
        bench.archive_by("/bin/true")
    notes = [
        "SeaweedFS on the loopback interface, TLS, on the same cores: its own CPU is in no number, and in every wall time.",
        *(requests(program, *rows, of_a_push) for program, of_a_push in zip(programs, pushes)),
    ]
    return Section("s3", programs, rows, notes, bench)


def requests_of_a_push(bench, program):
    """What one segment costs, by the archive_command."""
    bench.archive_by(program.archive_command())
    archived, before = bench.archived(), program.objects.traffic()
    bench.sql("select pg_switch_wal() from pg_logical_emit_message(false, '', 'one more segment')")
    while bench.archived() == archived:
        time.sleep(0.05)
    time.sleep(1)  # What it asks after the server has been told.
    return (program.objects.traffic() - before).requests // (bench.archived() - archived)


def requests(program, taken, restored, of_a_push):
    """What a person pays for, as the service counts it."""
    taken, restored = taken.runs[program.name], restored.runs[program.name]
    stored = median(run.traffic.received for run in taken) / 1e9
    own = median(run.traffic.requests - run.archived * of_a_push for run in taken)
    read = median(run.traffic.requests for run in restored)
    return (
        f"Requests of {program.name}: {own:.0f} for a backup that stores {stored:.2f} GB ({own / stored:.0f} a GB), "
        f"and {of_a_push} for each segment of WAL beside it; {read:.0f} for its restore ({read / stored:.0f} a GB)."
    )


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
    """What one thread of a backup and of a restore does, beside the codec alone; without a disk. The program itself gives the best
    of fifteen rounds."""
    say("pipeline")
    done = subprocess.run([tools.pipeline_speed, f"{bench.data}/base"], capture_output=True, text=True, check=True, env=environment())
    _, *rows = (line.split() for line in done.stdout.splitlines() if line.strip())
    lines = ["| codec | alone, in | backup | of the codec's own | alone, out | restore | ratio |", "|---|---|---|---|---|---|---|"]
    for codec, compress, write, share, decompress, read, ratio in rows:
        lines.append(f"| {codec} | {compress} MB/s | {write} MB/s | {share} | {decompress} MB/s | {read} MB/s | {ratio} |")
    note = (
        "In CPU time, the first MiBs of each relation file of this load, one core. A backup reads the page cache, verifies pages, takes digests, "
        "compresses and encrypts; a restore copies, decrypts, decompresses and takes digests."
    )
    return Section("pipeline", [], [], [note], bench, lines)


ALL = {"backup": backup, "s3": s3, "push": push, "delta": delta, "pipeline": pipeline}
