#!/usr/bin/env python3
"""Reads a Highwater repository without Highwater: lists it, opens WAL segments, rebuilds the files of a backup.

Written from docs/format.md alone; the section numbers below are that page's. It reads a local directory. Bring a
repository from object storage first, for example with `aws s3 sync s3://bucket/prefix DIRECTORY` or
`rclone copy remote:bucket/prefix DIRECTORY`.

Needs Python 3.9 and: pip install cryptography blake3 lz4 zstandard pyrage
(instead of pyrage, the program `age` serves for a key file with an age identity).

    decrypt.py list    REPOSITORY --cluster NAME --key FILE
    decrypt.py segment REPOSITORY --cluster NAME --key FILE SEGMENT -o FILE
    decrypt.py files   REPOSITORY --cluster NAME --key FILE BACKUP -o DIRECTORY

FILE after --key holds an age identity (AGE-SECRET-KEY-1...) or a passphrase. `segment` also opens .history, .backup
and .partial files, and answers 1 for a file that is not in the archive, so it serves as a restore_command.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import blake3
import lz4.block
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

READER = 1
NO_LENGTH = 2**64 - 1
MAX_FRAME_BYTES = 16 << 20
# Section 3: kinds, and the class of the data key of each.
SEGMENT, SMALL, COMMIT, PART, PACK, MANIFEST, FILES, LINEAGE, INDEX = 1, 2, 3, 4, 6, 7, 8, 10, 14
METADATA_KINDS = {7, 8, 9, 10, 11, 12, 13, 14}


class Damaged(Exception):
    """An object, or the key, is not what it must be. The message names it."""


class WrongKey(Damaged):
    """The key does not open the keyring."""


class Absent(Exception):
    """The object is not in the repository."""


def find(path):
    """The name under which `path` lies: itself, or with the digest of its content (section 1). None if it is absent."""
    if path.exists():
        return path
    name = re.compile(re.escape(path.name) + r"\.[0-9a-f]{32}")
    found = [entry for entry in (path.parent.iterdir() if path.parent.is_dir() else []) if name.fullmatch(entry.name)]
    if len(found) > 1:
        raise Damaged(f"{path}: two writers stored different contents: {sorted(entry.name for entry in found)}")
    return found[0] if found else None


def read_plain(path):
    found = find(path)
    if found is None:
        raise Damaged(f"{path}: there is no such file")
    return json.loads(found.read_bytes())


def hkdf(secret, info, salt=None):
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)


# --- Section 2: the keyring -------------------------------------------------------------------------------------------


class Keyring:
    """The keys of one cluster: every generation, each authenticated by the one before."""

    def __init__(self, directory, key_file, cluster_id):
        self.keys = {}
        self.first_fingerprint = None
        previous_identity, previous_fingerprint, refused, generation = None, None, None, 1
        while path := find(directory / f"{generation:08}.age"):
            try:
                document = json.loads(open_age(path.read_bytes(), key_file, path))
            except WrongKey as error:
                # The first generations may have been wrapped to others.
                if self.keys:
                    raise
                refused, generation = error, generation + 1
                continue
            identities = [key for key in document["keys"] if key["class"] == "identity"]
            if len(identities) != 1 or document["generation"] != generation:
                raise Damaged(f"{path}: generation {document['generation']}, {len(identities)} identity keys")
            if document["cluster_id"] != cluster_id:
                raise Damaged(f"{path}: belongs to cluster {document['cluster_id']}, not {cluster_id}")
            identity = bytes.fromhex(identities[0]["secret"])
            mac = document.pop("mac")
            signed_with = hkdf(previous_identity or identity, b"highwater keyring v1")
            if not hmac.compare_digest(hmac.new(signed_with, compact(document), hashlib.sha256).hexdigest(), mac):
                raise Damaged(f"{path}: its MAC is wrong; the storage may have slipped in a key of its own")
            if previous_fingerprint and document["previous"] != previous_fingerprint:
                raise Damaged(f"{path}: it does not follow the generation before")
            document["mac"] = mac
            hashed = hashlib.sha256(b"highwater keyring fingerprint v1" + compact(document)).digest()
            previous_fingerprint, previous_identity = hashed[:16].hex(), identity
            self.first_fingerprint = self.first_fingerprint or previous_fingerprint
            self.keys = {key["id"]: (key["class"], bytes.fromhex(key["secret"])) for key in document["keys"]}
            generation += 1
        if not self.keys:
            raise refused or Damaged(f"{directory}: there is no keyring")
        self.identity_id = next(number for number, (name, _) in self.keys.items() if name == "identity")
        identity = self.secret(self.identity_id, "identity")
        self.header_key = hkdf(identity, b"highwater header mac v1")
        self.digest_key = hkdf(identity, b"highwater digest v1")

    def secret(self, number, name):
        found, secret = self.keys.get(number, (None, None))
        if found != name:
            raise Damaged(f"the keyring has no {name} key {number}")
        return secret

    def digest(self, content):
        return blake3.blake3(content, key=self.digest_key).digest()


def compact(document):
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def open_age(sealed, key_file, path):
    text = Path(key_file).read_text()
    is_identity = any(line.startswith("AGE-SECRET-KEY-1") for line in text.splitlines())
    try:
        import pyrage
    except ImportError:
        if not is_identity:
            raise Damaged("a passphrase needs the Python package pyrage") from None
        age = subprocess.run(["age", "-d", "-i", key_file], input=sealed, capture_output=True)
        if age.returncode != 0:
            raise WrongKey(f"{path}: {age.stderr.decode(errors='replace').strip()}") from None
        return age.stdout
    try:
        if is_identity:
            lines = [line.strip() for line in text.splitlines() if line.startswith("AGE-SECRET-KEY-1")]
            return pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(line) for line in lines])
        return pyrage.passphrase.decrypt(sealed, text.rstrip("\r\n"))
    except Exception as error:
        raise WrongKey(f"{path}: {key_file} does not open it ({error})") from None


# --- Section 3: the sealed envelope -----------------------------------------------------------------------------------


class Header:
    def __init__(self, keyring, sealed, name):
        if len(sealed) < 154 or sealed[:8] != b"HIGHWATR":
            raise Damaged(f"{name}: not a sealed object")
        version, length = struct.unpack_from("<HH", sealed, 8)
        self.kind, self.codec, cipher, wrap = sealed[12:16]
        if version != 1 or cipher != 1 or wrap != 0 or self.codec > 2:
            raise Damaged(f"{name}: version {version}, cipher {cipher}, key wrap {wrap}, codec {self.codec} are not known")
        extension = struct.unpack_from("<H", sealed, 120)[0]
        if length != 122 + extension + 32 or length > len(sealed):
            raise Damaged(f"{name}: its header has the wrong length")
        self.bytes = bytes(sealed[:length])
        if not hmac.compare_digest(
            blake3.blake3(self.bytes[:-32], key=keyring.header_key).digest(), self.bytes[-32:]
        ):
            raise Damaged(f"{name}: its header's MAC is wrong: damaged, or of another cluster")
        self.key_id, self.identity_id, self.index_key_id, self.attachment_length = struct.unpack_from("<IIII", sealed, 16)
        self.salt = self.bytes[32:64]
        self.digest = self.bytes[72:104] if sealed[64] == 1 else None
        self.length, self.valid_length = struct.unpack_from("<QQ", sealed, 104)

    def object_key(self, keyring, lineage, path, kind=None):
        kind = kind or self.kind
        name = "metadata" if kind in METADATA_KINDS else "content"
        secret = keyring.secret(self.index_key_id if kind == INDEX else self.key_id, name)
        info = b"highwater object v1" + bytes([kind]) + bytes.fromhex(lineage) + path.encode()
        return hkdf(secret, info + hashlib.sha256(self.bytes).digest(), self.salt)


def open_frame(key, number, last, stored, name):
    """The plaintext of one frame, and what follows it."""
    if len(stored) < 8:
        raise Damaged(f"{name}: cut off at frame {number}")
    length, crc = struct.unpack_from("<II", stored)
    ciphertext = stored[8 : 8 + length]
    if len(ciphertext) != length or zlib.crc32(ciphertext) != crc:
        raise Damaged(f"{name}: frame {number} is damaged (CRC)")
    try:
        associated = struct.pack("<QB", number, last)
        return AESGCM(key).decrypt(number.to_bytes(12, "big"), bytes(ciphertext), associated), stored[8 + length :]
    except InvalidTag:
        raise Damaged(f"{name}: frame {number} is not authentic") from None


def unpack_frame(plain, codec, name):
    form, length = struct.unpack_from("<BI", plain)
    raw = plain[5:]
    if length > MAX_FRAME_BYTES:
        raise Damaged(f"{name}: a frame claims {length} bytes")
    if form == 1 and codec == 1:
        raw = lz4.block.decompress(raw, uncompressed_size=length)
    elif form == 1 and codec == 2:
        raw = zstandard.ZstdDecompressor().decompress(raw, max_output_size=length)
    elif form != 0:
        raise Damaged(f"{name}: a frame of form {form} under codec {codec}")
    if len(raw) != length:
        raise Damaged(f"{name}: a frame of {len(raw)} bytes instead of {length}")
    return raw


def open_object(keyring, lineage, path, sealed, kinds):
    """The header and the plaintext of a whole object."""
    header = Header(keyring, sealed, path)
    if header.kind not in kinds:
        raise Damaged(f"{path}: an object of kind {header.kind} stands there")
    key = header.object_key(keyring, lineage, path)
    last_offset, count, crc, magic = struct.unpack("<QII4s", sealed[-20:])
    if magic != b"HWFT" or zlib.crc32(sealed[-20:-8]) != crc:
        raise Damaged(f"{path}: its footer is damaged")
    index, rest = open_frame(key, count, 1, memoryview(sealed)[last_offset:], path)
    length, digest, sealed_count = struct.unpack_from("<Q32sI", index)
    if sealed_count != count or len(rest) != 20:
        raise Damaged(f"{path}: its last frame does not fit its footer")
    sizes = list(struct.iter_unpack("<II", index[44:]))
    stored = memoryview(sealed)[len(header.bytes) + header.attachment_length :]
    content = []
    for number, (stored_length, raw_length) in enumerate(sizes):
        plain, following = open_frame(key, number, 0, stored, path)
        content.append(unpack_frame(plain, header.codec, path))
        if len(stored) - len(following) != stored_length + 8 or len(content[-1]) != raw_length:
            raise Damaged(f"{path}: frame {number} does not fit the frame index")
        stored = following
    content = b"".join(content)
    if len(sizes) != count or len(content) != length or header.length not in (length, NO_LENGTH):
        raise Damaged(f"{path}: {len(content)} bytes instead of {length}")
    if keyring.digest(content) != digest or (header.kind != COMMIT and header.digest not in (None, digest)):
        raise Damaged(f"{path}: its digest is wrong")
    return header, content


# --- Section 1: the layout --------------------------------------------------------------------------------------------


class Cluster:
    def __init__(self, repository, name, key_file):
        root = Path(repository)
        self.about = read_plain(root / "highwater.json")
        if self.about.get("format") != "highwater" or self.about["min_reader"] > READER:
            raise Damaged(f"{root}: format version {self.about.get('version')} needs a newer reader")
        self.extent_bytes = self.about["extent_bytes"]
        self.directory = root / "clusters" / name
        self.id = read_plain(self.directory / "cluster.json")["cluster_id"]
        self.keyring = Keyring(self.directory / "keys", key_file, self.id)

    def read(self, lineage, path, *kinds):
        """The header and the plaintext of an object; of a segment in parts, the segment."""
        base = self.directory / lineage
        found = find(base / path)
        if found is None:
            raise Absent(f"{path}: not in lineage {lineage}")
        path = found.relative_to(base).as_posix()
        sealed = found.read_bytes()
        header, content = open_object(self.keyring, lineage, path, sealed, kinds)
        if header.kind == COMMIT:
            content = self.join_parts(lineage, path, json.loads(content), header.digest)
        return header, content

    def join_parts(self, lineage, path, commit, digest):
        """Section 4: a segment larger than 32 MiB."""
        content = b"".join(self.read(lineage, part["path"], PART)[1] for part in commit["parts"])
        if len(content) != commit["length"] or self.keyring.digest(content) != digest:
            raise Damaged(f"{path}: its parts are not the whole")
        return content

    def lineages(self):
        names = sorted(entry.name for entry in self.directory.iterdir() if re.fullmatch("[0-9a-f]{32}", entry.name))
        return {name: json.loads(self.read(name, "lineage", LINEAGE)[1]) for name in names}

    def backups(self, lineage):
        for path in sorted((self.directory / lineage / "backups").glob("*/manifest")):
            yield json.loads(self.read(lineage, f"backups/{path.parent.name}/manifest", MANIFEST)[1])


# --- Section 4: WAL ---------------------------------------------------------------------------------------------------

SEGMENT_NAME = re.compile("([0-9A-F]{8})([0-9A-F]{8})[0-9A-F]{8}")


def wal_path(name):
    """Where a WAL file lies, and the kinds of object it may be."""
    if re.fullmatch(r"[0-9A-F]{8}\.history", name):
        return f"wal/{name}", (SMALL,)
    match = re.fullmatch(SEGMENT_NAME.pattern + r"(\.partial|\.variant\.[0-9a-f]{32}|\.[0-9A-F]{8}\.backup)?", name)
    if not match:
        raise Absent(f"{name}: not the name of a WAL file")
    kinds = (SMALL,) if name.endswith(".backup") else (SEGMENT, COMMIT)
    return f"wal/{match[1]}/{match[2]}/{name}", kinds


def segment(cluster, arguments):
    path, kinds = wal_path(arguments.name)
    lineages = [arguments.lineage] if arguments.lineage else list(cluster.lineages())
    found = []
    for lineage in lineages:
        try:
            found.append((lineage, cluster.read(lineage, path, *kinds)[1]))
        except Absent:
            continue
    if not found:
        raise Absent(f"{arguments.name}: not in the archive")
    if len(found) > 1:
        raise Damaged(f"{arguments.name}: in {len(found)} lineages; say which: " + ", ".join(name for name, _ in found))
    Path(arguments.output).write_bytes(found[0][1])


# --- Sections 6 and 7: backups ----------------------------------------------------------------------------------------


class Extents:
    """Reads single extents out of packs."""

    def __init__(self, cluster, lineage):
        self.cluster, self.lineage, self.packs = cluster, lineage, {}

    def add_pack(self, line):
        header = Header(self.cluster.keyring, base64.b64decode(line["header"]), line["path"])
        if header.kind != PACK:
            raise Damaged(f"{line['path']}: not a pack")
        key = header.object_key(self.cluster.keyring, self.lineage, line["path"])
        self.packs[line["pack"]] = (line["path"], header, key)

    def read(self, extent):
        pack, frame, offset, length, digest = extent
        path, header, key = self.packs[pack]
        with open(self.cluster.directory / self.lineage / path, "rb") as file:
            file.seek(offset)
            stored = file.read(length)
        plain, rest = open_frame(key, frame, 0, memoryview(stored), path)
        raw = unpack_frame(plain, header.codec, path)
        if len(rest) or self.cluster.keyring.digest(raw)[:16].hex() != digest:
            raise Damaged(f"{path}: frame {frame} is not the extent that the file list names")
        return raw


def file_list(cluster, lineage, manifest):
    for part in manifest["file_list"]:
        content = cluster.read(lineage, part["path"], FILES)[1]
        if len(content) != part["length"] or cluster.keyring.digest(content).hex() != part["digest"]:
            raise Damaged(f"{part['path']}: not the part that the manifest names")
        yield from (json.loads(line) for line in content.splitlines())


def decoded(path):
    """A path of the file list as bytes of the file system."""
    return re.sub(rb"%([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), path.encode())


def inside(root, path):
    """`path` below `root`, refused if it leads elsewhere: by its own text, or through a link of the file list."""
    parts = decoded(path).split(b"/")
    if any(part in (b"", b".", b"..") for part in parts):
        raise Damaged(f"{path!r}: not a path inside the data directory")
    place = os.fsencode(root)
    for number, part in enumerate(parts, 1):
        place = os.path.join(place, part)
        # The links of tablespaces lead to directories that were made here.
        if os.path.islink(place) and not (number == 2 and parts[0] == b"pg_tblspc"):
            raise Damaged(f"{path!r}: lies behind a link, or in the place of one")
    return place


# Never links of the file list.
DIRECTORIES = ("global", "pg_tblspc", "pg_wal", "highwater")


def link_target(path, target, tablespaces):
    """The target of the link `path`, refused if it may leave the data directory, or the tablespace that the link lies in.

    The way up comes first and is no longer than the way to the link: a `..` behind a name would lead up from wherever that
    name leads.
    """
    parts = path.split("/")
    apart = parts[0] == "pg_tblspc" and len(parts) > 2 and parts[1] in tablespaces
    depth = len(parts) - (3 if apart else 1)
    way = [part for part in target.split("/") if part not in ("", ".")]
    up = next((number for number, part in enumerate(way) if part != ".."), len(way))
    if not target or target.startswith("/") or "\0" in target or up > depth or ".." in way[up:]:
        raise Damaged(f"{path!r}: the link leads to {target!r}, which may be outside the data directory")
    if path in DIRECTORIES or parts[0] == "pg_tblspc" and len(parts) == 2:
        raise Damaged(f"{path!r}: is a link, where a directory belongs")
    return target.encode()


def write_file(path, size, mode, mtime, chunks):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        for chunk in chunks:
            file.write(chunk)
        if file.tell() != size:
            raise Damaged(f"{os.fsdecode(path)}: {file.tell()} bytes instead of {size}")
        os.fchmod(file.fileno(), mode)
    if mtime is not None:
        os.utime(path, (mtime, mtime))


def files(cluster, arguments):
    candidates = [arguments.lineage] if arguments.lineage else list(cluster.lineages())
    where = [(lineage, found) for lineage in candidates for found in cluster.backups(lineage) if found["backup"] == arguments.backup]
    if not where:
        raise Absent(f"{arguments.backup}: there is no such complete backup")
    lineage, manifest = where[0]
    root = Path(arguments.output).absolute()
    root.mkdir(mode=0o700)
    tablespaces, outside = Path(f"{root}-tablespaces"), Path(f"{root}-outside")
    extents, modes, targets, pending = Extents(cluster, lineage), [], {}, None

    def finish(entry):
        """Writes a file once all its extents are known."""
        if entry is None:
            return
        if "outside" in entry:
            path = inside(outside, entry["outside"].lstrip("/"))
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        else:
            path = inside(root, entry["file"])
        write_file(path, entry["size"], entry["mode"], entry["mtime"], map(extents.read, entry["extents"]))

    for line in file_list(cluster, lineage, manifest):
        if "more" in line:
            pending["extents"].extend(line["more"])
            continue
        finish(pending)
        pending = None
        if "pack" in line:
            extents.add_pack(line)
        elif "dir" in line:
            path = inside(root, line["dir"]) if line["dir"] not in ("", ".") else os.fsencode(root)
            os.makedirs(path, mode=0o700, exist_ok=True)
            modes.append((path, line["mode"]))
        elif "link" in line:
            # Never where the original was: that may be in use. The map below follows.
            if not re.fullmatch("pg_tblspc/[0-9]+", line["link"]):
                raise Damaged(f"{line['link']!r}: not the link of a tablespace")
            oid = line["link"].rsplit("/", 1)[1]
            targets[oid] = tablespaces / oid
            targets[oid].mkdir(parents=True, mode=0o700)
            os.makedirs(os.path.dirname(inside(root, line["link"])), mode=0o700, exist_ok=True)
            os.symlink(targets[oid], inside(root, line["link"]))
            modes.append((os.fsencode(targets[oid]), line["mode"]))
        elif "symlink" in line:
            os.symlink(link_target(line["symlink"], line["target"], targets), inside(root, line["symlink"]))
        elif "file" in line or "outside" in line:
            pending = line
        else:
            raise Damaged(f"a line of the file list is of no known form: {sorted(line)}")
    finish(pending)

    def put(name, text):
        with open(inside(root, name), "w") as file:
            file.write(text)

    put("backup_label", manifest["backup_label"])
    if manifest["tablespace_map"]:
        lines = (line.split(" ", 1)[0] for line in manifest["tablespace_map"].splitlines() if line)
        put("tablespace_map", "".join(f"{oid} {targets[oid]}\n" for oid in lines if oid in targets))
    for path, mode in reversed(modes):
        os.chmod(path, mode)
    # Last, as a data directory without it does not start.
    control = manifest["control"]
    write_file(inside(root, "global/pg_control"), 8192, control["mode"], None, [base64.b64decode(control["bytes"])])
    os.chmod(root, manifest["data_directory_mode"])
    print(f"wrote {root}")
    if outside.exists():
        print(f"configuration from outside the data directory is below {outside}")
    command = " ".join(map(repr, [sys.executable, os.path.abspath(__file__), "segment", os.path.abspath(arguments.repository)]))
    command += f" --cluster {arguments.cluster} --key {os.path.abspath(arguments.key)!r} --lineage {lineage} %f -o %p"
    print("to recover, add to postgresql.auto.conf and create the file recovery.signal:")
    print("restore_command = '" + command.replace("'", "''") + "'")


# --- What is there ----------------------------------------------------------------------------------------------------


def show(cluster, arguments):
    print(f"cluster {arguments.cluster}, id {cluster.id}, keyring fingerprint {cluster.keyring.first_fingerprint}")
    for name, record in cluster.lineages().items():
        if arguments.lineage not in (None, name):
            continue
        print(f"lineage {name}: system {record['system_identifier']}, PostgreSQL {record['pg_major']}, ", end="")
        print(f"since {record['created_at']} ({record['reason']})")
        wal = cluster.directory / name / "wal"
        for timeline in sorted(entry for entry in wal.glob("*") if re.fullmatch("[0-9A-F]{8}", entry.name)):
            pattern = re.compile(SEGMENT_NAME.pattern + r"(\.[0-9a-f]{32})?")
            segments = sorted(entry.name[:24] for entry in timeline.glob("*/*") if pattern.fullmatch(entry.name))
            if segments:
                print(f"  timeline {int(timeline.name, 16)}: {len(segments)} segments, {segments[0]} to {segments[-1]}")
        for backup in cluster.backups(name):
            wal, counts = backup["wal"], backup["counts"]
            print(f"  backup {backup['backup']}: {counts['files']} files, {counts['bytes']} bytes, timeline {wal['timeline']}, ", end="")
            print(f"{wal['start_lsn']} to {wal['stop_lsn']}, WAL {wal['first_segment']} to {wal['last_segment']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run in (("list", show), ("segment", segment), ("files", files)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("repository", help="a directory")
        command.add_argument("--cluster", required=True, help="the cluster's name")
        command.add_argument("--key", required=True, help="file with the age identity or the passphrase")
        command.add_argument("--lineage", help="32 hex digits, where the cluster has several")
        if name == "segment":
            command.add_argument("name", help="a segment, or a .history, .backup or .partial file")
        if name == "files":
            command.add_argument("backup", help="the backup's id")
        if name != "list":
            command.add_argument("-o", "--output", required=True)
    arguments = parser.parse_args()
    if "://" in arguments.repository and not arguments.repository.startswith("file://"):
        parser.error("only a local directory can be read; mirror the repository first (see --help)")
    arguments.repository = arguments.repository.removeprefix("file://")
    try:
        arguments.run(Cluster(arguments.repository, arguments.cluster, arguments.key), arguments)
    except Absent as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except (Damaged, OSError, KeyError, ValueError, struct.error, lz4.block.LZ4BlockError, zstandard.ZstdError) as error:
        print(f"error: {error}", file=sys.stderr)
        # Above 125, so that PostgreSQL does not take it for the end of WAL.
        sys.exit(126)


if __name__ == "__main__":
    main()
