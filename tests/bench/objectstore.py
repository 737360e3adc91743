"""SeaweedFS with TLS on the loopback interface: the S3 service of group `s3`."""

import os
import re
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request

from dataclasses import dataclass

from cluster import make_directory, run
from measure import as_server_user, environment

BUCKET = "backups"
ACCESS_KEY, SECRET_KEY = "AKBENCH", "bench-secret-of-no-worth"

# Every port it listens on, or it would take fixed ones.
PORTS = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
         "s3.port", "s3.port.grpc", "s3.port.https", "metricsPort"]


@dataclass
class Traffic:
    """What the service has answered since it began."""

    requests: int
    received: int
    """bytes"""

    def __sub__(self, before):
        return Traffic(self.requests - before.requests, self.received - before.received)


class ObjectStore:
    """A running service with an empty bucket, gone with the block that it is used in."""

    def __init__(self, bench, program):
        self.directory, self.program = make_directory(f"{bench.scratch}/objects"), program
        self.ca_file = f"{self.directory}/ca.pem"

    def __enter__(self):
        key = self.make_certificates()
        identities = f"{self.directory}/s3.json"
        with open(identities, "w") as file:
            file.write('{"identities": [{"name": "bench", "credentials": [{"accessKey": "%s", "secretKey": "%s"}],'
                       ' "actions": ["Admin", "Read", "List", "Write"]}]}' % (ACCESS_KEY, SECRET_KEY))
        ports = dict(zip(PORTS, free_ports(len(PORTS))))
        self.port, self.metrics = ports["s3.port.https"], ports["metricsPort"]
        command = [self.program, "server", f"-dir={self.directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=0",
                   "-s3.port.lance=0", "-s3.port.iceberg=0", "-master.volumeSizeLimitMB=1024", "-s3", f"-s3.config={identities}", "-metricsIp=127.0.0.1",
                   f"-s3.key.file={key}", f"-s3.cert.file={self.directory}/server.pem",
                   *(f"-{name}={port}" for name, port in ports.items())]
        with open(f"{self.directory}/log", "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory,
                                            env=environment(), **as_server_user())
        try:
            self.until(f"http://127.0.0.1:{ports['filer.port']}/buckets/{BUCKET}/", "POST", 201)
            self.until(f"{self.endpoint()}/{BUCKET}/absent", "GET", 403)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def endpoint(self):
        return f"https://localhost:{self.port}"

    def traffic(self):
        """By the service's own counters."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.metrics}/metrics") as answer:
            text = answer.read().decode()

        def total(counter):
            return sum(int(float(value)) for value in re.findall(rf"^{counter}\{{.*\}} (\S+)$", text, re.MULTILINE))

        return Traffic(total("SeaweedFS_s3_request_total"), total("SeaweedFS_s3_bucket_traffic_received_bytes_total"))

    def make_certificates(self):
        """An authority, and a certificate by it for the loopback interface. Answers the path of the server's key."""
        place = self.directory
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        run([*new, "-subj", "/CN=bench authority", "-keyout", f"{place}/ca.key", "-out", self.ca_file,
             "-addext", "basicConstraints=critical,CA:TRUE"])
        run([*new, "-subj", "/CN=127.0.0.1", "-keyout", f"{place}/server.key", "-out", f"{place}/server.pem",
             "-CA", self.ca_file, "-CAkey", f"{place}/ca.key", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-addext", "basicConstraints=critical,CA:FALSE"])
        return f"{place}/server.key"

    def until(self, url, method, status):
        """Asks until the answer has this status."""
        trust = ssl.create_default_context(cafile=self.ca_file)
        deadline, said = time.monotonic() + 60, None
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}),
                                                     urllib.request.HTTPSHandler(context=trust))
                with opener.open(urllib.request.Request(url, method=method)) as answer:
                    said = answer.status
            except urllib.error.HTTPError as error:
                said = error.code
            except OSError as error:
                said = error
            if said == status:
                return
            time.sleep(0.2)
        sys.exit(f"bench: SeaweedFS at {url} said {said}; its log: {self.directory}/log")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports

