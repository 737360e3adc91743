"""What the disk can take: the bound of every restore."""

import mmap
import os
import threading
import time

from cluster import make_directory

BLOCK = 1 << 20
AT_ONCE = 16
FILE_BLOCKS = 1024


def write_alone(bench, size):
    """Seconds that it takes to put `size` bytes onto the disk and nothing else: past the page cache, in pieces of 1 MiB, 16 at once,
    into files of 1 GiB whose space was taken before, and synced."""
    directory = make_directory(f"{bench.scratch}/disk")
    blocks = size // BLOCK
    data = mmap.mmap(-1, BLOCK)
    data.write(os.urandom(BLOCK))
    files = []
    begin = time.monotonic()
    try:
        for first in range(0, blocks, FILE_BLOCKS):
            files.append(os.open(f"{directory}/{first}", os.O_CREAT | os.O_WRONLY | os.O_DIRECT, 0o600))
            os.posix_fallocate(files[-1], 0, min(FILE_BLOCKS, blocks - first) * BLOCK)
        pieces, lock = iter(range(blocks)), threading.Lock()

        def write():
            while True:
                with lock:
                    piece = next(pieces, None)
                if piece is None:
                    return
                os.pwrite(files[piece // FILE_BLOCKS], data, piece % FILE_BLOCKS * BLOCK)

        writers = [threading.Thread(target=write) for _ in range(AT_ONCE)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        for file in files:
            os.fsync(file)
        return time.monotonic() - begin
    finally:
        for file in files:
            os.close(file)
        for name in os.listdir(directory):
            os.remove(os.path.join(directory, name))
