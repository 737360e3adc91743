"""Highwater beside pgBackRest: `./dev bench [GROUP...]`.

Called by ./dev as `python3 tests/bench BINARY CODEC_BOUND PIPELINE_SPEED SEAWEEDFS [GROUP...]`. The groups are `backup` (a full
backup, and its restore), `s3` (the same in an S3 service), `push` (one archive-push without an agent), `delta` (restores over what
is there: 1 % changed, or left by one that was killed) and `pipeline` (what one core of a backup and of a restore does, without a disk); all unless
told. In all but the last both programs work on one running cluster of mixed data, one after the other, turn about. What is
measured is printed, and appended to docs/performance.md.

HIGHWATER_BENCH_MB (2304) is how much data, HIGHWATER_BENCH_PAIRS (7) how many pairs count after the discarded warm-up,
HIGHWATER_BENCH_DIR where all of it lies (about ten times the data).
"""

import os
import sys

import cluster
import groups
import report
from measure import warm_memory


def main():
    tools, wanted = groups.Tools(*sys.argv[1:5]), sys.argv[5:]
    wanted = wanted or list(groups.ALL)
    unknown = [group for group in wanted if group not in groups.ALL]
    if unknown:
        sys.exit(f"bench: no group {unknown[0]}; there are {', '.join(groups.ALL)}")
    megabytes = int(os.environ.get("HIGHWATER_BENCH_MB", "2304"))
    pairs = int(os.environ.get("HIGHWATER_BENCH_PAIRS", "7"))

    with cluster.Bench(megabytes) as bench:
        warm_memory(bench.scratch, 4 * megabytes)
        sections = [groups.ALL[group](bench, tools, pairs) for group in wanted]
    text = report.write(sections, megabytes, pairs)
    print(text)
    if "HIGHWATER_BENCH_MB" in os.environ or "HIGHWATER_BENCH_PAIRS" in os.environ:
        print("bench: not the standard size, so docs/performance.md is left as it is", file=sys.stderr)
    else:
        report.append(text)


main()
