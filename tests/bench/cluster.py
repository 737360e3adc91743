"""The cluster that is measured: made once for a PostgreSQL major and a size, kept in the cache, and started for each run."""

import os
import re
import shutil
import subprocess
import sys
import tempfile

from measure import as_server_user, environment, server_user

# The first pgBackRest that supports a PostgreSQL major.
SUPPORT = [(18, (2, 57)), (17, (2, 54)), (16, (2, 48)), (15, (2, 41)), (14, (2, 36))]

# Rows of about 470 bytes with their indexes: half random (uuids, digests), half of the kind that repeats (text, jsonb).
SCHEMA = """
create table if not exists events (
    id bigserial primary key, uid uuid not null default gen_random_uuid(), at timestamptz not null,
    kind text not null, amount numeric(14,4) not null, body jsonb not null, note text not null);
create index if not exists events_uid on events (uid);
create index if not exists events_at on events (at, kind);
create index if not exists events_body on events using gin (body jsonb_path_ops);
"""
ROWS = """
insert into events (at, kind, amount, body, note)
select timestamptz '2026-01-01' + (n * interval '1 second'),
    (array['order','payment','refund','shipment','login'])[1 + n % 5],
    round((random() * 100000)::numeric, 4),
    jsonb_build_object('customer', n % 5000, 'status', (array['new','open','done'])[1 + n % 3],
        'items', jsonb_build_array(n % 97, n % 89), 'channel', (array['web','app','shop'])[1 + n % 3]),
    'Order ' || n || ' shipped to customer ' || (n % 5000) || ', tracking ' || md5(n::text)
from generate_series({first}::bigint, {last}::bigint) n;
"""


def run(command, **options):
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/", env=environment(),
        **as_server_user(), **options)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def own(path):
    user = server_user()
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)


def make_directory(path):
    os.makedirs(path, mode=0o700, exist_ok=True)
    own(path)
    return path


def postgres_bin():
    """The newest PostgreSQL of this machine that the installed pgBackRest supports."""
    said = run(["pgbackrest", "version"])
    version = tuple(map(int, re.search(r"(\d+)\.(\d+)", said).groups()))
    roots = [os.environ.get("HIGHWATER_POSTGRES_DIR"), cache("postgresql"), "/var/cache/highwater/postgresql", "/usr/lib/postgresql"]
    for major, needed in SUPPORT:
        for root in filter(None, roots):
            path = f"{root}/{major}/bin"
            if version >= needed and os.access(f"{path}/initdb", os.X_OK):
                return path
    sys.exit(f"bench: no PostgreSQL here that pgBackRest {version[0]}.{version[1]} supports")


def cache(name):
    home = "/var/cache" if os.geteuid() == 0 else os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
    return os.path.join(home, "highwater", name)


class Bench:
    """A running cluster with its data in the page cache, and a scratch directory that is gone afterwards."""

    def __init__(self, megabytes):
        self.bin = postgres_bin()
        self.major = int(self.bin.split("/")[-2])
        root = os.environ.get("HIGHWATER_BENCH_DIR", cache("bench"))
        os.makedirs(root, exist_ok=True)
        self.data = f"{root}/data-{self.major}-{megabytes}"
        self.scratch = tempfile.mkdtemp(prefix="run-", dir=root)
        own(self.scratch)
        os.chmod(self.scratch, 0o755)
        self.socket = tempfile.mkdtemp(prefix="hwbench-", dir="/tmp")
        own(self.socket)
        self.megabytes = megabytes

    def __enter__(self):
        try:
            if not os.path.exists(self.data):
                self.make()
            self.start()
            self.sql("alter system reset archive_command")
            self.load_page_cache()
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        self.stop(check=False)
        shutil.rmtree(f"{self.data}/highwater", ignore_errors=True)
        shutil.rmtree(self.scratch, ignore_errors=True)
        shutil.rmtree(self.socket, ignore_errors=True)

    def make(self):
        building = f"{self.data}.building"
        shutil.rmtree(building, ignore_errors=True)
        print(f"bench: making {self.megabytes} MB of data for PostgreSQL {self.major}, once", file=sys.stderr)
        run([f"{self.bin}/initdb", "-D", make_directory(building), "-U", "postgres", "--auth=trust", "--no-locale",
             "--encoding=UTF8", "--data-checksums", "--no-sync"])
        with open(f"{building}/postgresql.conf", "a") as conf:
            conf.write("listen_addresses = ''\nshared_buffers = '256MB'\nmax_wal_size = '4GB'\nwal_level = replica\n"
                       "archive_mode = on\narchive_command = '/bin/true'\nautovacuum = off\nmaintenance_work_mem = '256MB'\n"
                       "logging_collector = off\n")
        finished, self.data = self.data, building
        self.start("-c fsync=off -c full_page_writes=off")
        self.sql(SCHEMA)
        first, step = 1, 250_000
        while int(self.sql("select pg_database_size('postgres')")) < self.megabytes << 20:
            self.sql(ROWS.format(first=first, last=first + step - 1))
            first += step
        self.sql("vacuum analyze")
        self.sql("checkpoint")
        self.stop()
        os.rename(building, finished)
        self.data = finished

    def start(self, options=""):
        self.stop(check=False)
        run([f"{self.bin}/pg_ctl", "start", "-D", self.data, "-w", "-t", "300", "-l", f"{self.data}/server.log", "-o",
             f"-c unix_socket_directories={self.socket} -c port=5432 {options}"], )

    def stop(self, check=True):
        if os.path.exists(f"{self.data}/postmaster.pid") or check:
            subprocess.run([f"{self.bin}/pg_ctl", "stop", "-D", self.data, "-w", "-m", "fast"], cwd="/", check=check,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_server_user())

    def sql(self, text, socket=None):
        return run([f"{self.bin}/psql", "-h", socket or self.socket, "-p", "5432", "-U", "postgres", "-d", "postgres", "-XAtq",
                    "-v", "ON_ERROR_STOP=1", "-c", text]).strip()

    def archive_by(self, command):
        """Turns archiving over to one of the two programs."""
        quoted = command.replace("'", "''")
        self.sql(f"alter system set archive_command = '{quoted}'")
        self.sql("select pg_reload_conf()")

    def archived(self):
        """How many segments were archived so far."""
        return int(self.sql("select archived_count from pg_stat_archiver"))

    def load_page_cache(self):
        for directory, _, names in os.walk(self.data):
            for name in names:
                try:
                    with open(os.path.join(directory, name), "rb") as file:
                        while file.read(1 << 20):
                            pass
                except FileNotFoundError:
                    pass  # The server runs, and removes files of its own.

    def compare_restored(self, first, second):
        """Starts both restored clusters without archiving and compares what they hold."""
        return self.fingerprint(first) == self.fingerprint(second)

    def fingerprint(self, data):
        log, socket = f"{self.scratch}/restored.log", tempfile.mkdtemp(prefix="hwbench-", dir="/tmp")
        own(socket)
        try:
            run([f"{self.bin}/pg_ctl", "start", "-D", data, "-w", "-t", "300", "-l", log, "-o",
                 f"-c unix_socket_directories={socket} -c port=5432 -c archive_mode=off -c fsync=off"])
            try:
                self.sql("select 1", socket)
                return self.sql("select count(*), sum(hashtextextended(e::text, 0)) from events e", socket)
            finally:
                run([f"{self.bin}/pg_ctl", "stop", "-D", data, "-w", "-m", "immediate"])
        finally:
            shutil.rmtree(socket, ignore_errors=True)
