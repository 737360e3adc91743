"""The two programs, set up alike: encrypted, LZ4, two at work, a repository in a local directory or in an S3 service."""

import os
import shutil

from cluster import make_directory, own, run
from objectstore import ACCESS_KEY, BUCKET, SECRET_KEY


def write(path, text):
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, 0o600)
    own(path)
    return path


class PgBackRest:
    name = "pgBackRest"

    def __init__(self, bench, objects=None):
        self.bench, self.objects = bench, objects
        base = make_directory(f"{bench.scratch}/pgbackrest{'-s3' if objects else ''}")
        self.repository = None if objects else make_directory(f"{base}/repository")
        self.spool = make_directory(f"{base}/spool")
        lock = make_directory(f"{base}/lock")
        self.config = write(f"{base}/pgbackrest.conf", f"""[global]
{self.storage(objects)}
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=3uXxYyW1cT9qkXl0w5Zr4Qz8Jv2Nn6Pp
repo1-retention-full=9999
compress-type=lz4
process-max=2
start-fast=y
log-level-file=off
log-level-console=warn
lock-path={lock}
spool-path={self.spool}

[main]
pg1-path={bench.data}
pg1-socket-path={bench.socket}
pg1-user=postgres
""")
        self.command = ["pgbackrest", f"--config={self.config}", "--stanza=main"]
        run([*self.command, "stanza-create"])

    def storage(self, objects):
        if objects is None:
            return f"repo1-path={self.repository}"
        return f"""repo1-type=s3
repo1-path=/pgbackrest
repo1-s3-bucket={BUCKET}
repo1-s3-endpoint=localhost
repo1-s3-region=us-east-1
repo1-s3-uri-style=path
repo1-s3-key={ACCESS_KEY}
repo1-s3-key-secret={SECRET_KEY}
repo1-storage-port={objects.port}
repo1-storage-ca-file={objects.ca_file}"""

    def version(self):
        return run(["pgbackrest", "version"]).split()[-1]

    def archive_command(self):
        return f"pgbackrest --config={self.config} --stanza=main archive-push %p"

    def backup(self):
        return [*self.command, "--type=full", "backup"]

    def restore(self, target, delta=False):
        make_directory(target)
        options = ["--delta"] if delta else []
        return [*self.command, f"--pg1-path={target}", "--type=immediate", "--target-action=promote", *options, "restore"]

    def resume(self, target):
        return self.restore(target, delta=True)

    def push(self, segment):
        return [*self.command, "archive-push", segment]


class Highwater:
    name = "Highwater"

    def __init__(self, bench, binary, objects=None):
        self.bench, self.binary, self.objects = bench, binary, objects
        base = make_directory(f"{bench.scratch}/highwater{'-s3' if objects else ''}")
        self.repository = None if objects else make_directory(f"{base}/repository")
        self.spool = None
        self.config = write(f"{base}/main.toml", f"""[cluster]
name = "main"
data_dir = "{bench.data}"
connection = "host={bench.socket} port=5432 user=postgres dbname=postgres"

[repository.primary]
{self.storage(base, objects)}
key_file = "{base}/main.key"
compression = "lz4"
""")
        self.command = [binary, "--config", self.config]
        # What another group's repository was is none of this one's concern.
        shutil.rmtree(f"{bench.data}/highwater", ignore_errors=True)
        run([*self.command, "init"])

    def storage(self, base, objects):
        if objects is None:
            return f'url = "file://{self.repository}"'
        secret = write(f"{base}/secret", SECRET_KEY)
        return f"""url = "s3://{BUCKET}/highwater"
endpoint = "{objects.endpoint()}"
ca_file = "{objects.ca_file}"
access_key_id = "{ACCESS_KEY}"
secret_access_key_file = "{secret}"
"""

    def version(self):
        return run([self.binary, "--version"]).split()[-1]

    def archive_command(self):
        return f"{self.binary} --config {self.config} archive-push %p"

    def backup(self):
        return [*self.command, "backup", "--fast-checkpoint", "--jobs", "2"]

    def restore(self, target, delta=False):
        options = ["--delta"] if delta else []
        return [*self.command, "restore", "--target-dir", target, "--to-consistent", "--action", "promote", "--jobs", "2", *options]

    def resume(self, target):
        return [*self.restore(target), "--json"]

    def push(self, segment):
        return [*self.command, "archive-push", segment]
