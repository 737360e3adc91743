//! The codec's own bound for `./dev bench`: every file below a directory through LZ4 in blocks of 1 MiB, on some threads,
//! with nothing read, sealed or written in the time that is measured. `codec_bound DIRECTORY THREADS`

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const BLOCK: usize = 1 << 20;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().expect("a directory"));
    let threads: usize = arguments.next().expect("a number of threads").parse().expect("a number");

    let mut pending = Vec::new();
    list(&directory, &mut pending);
    let queue = Mutex::new(pending);
    let done: Vec<Done> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(&queue))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).collect()
    });
    let plain: u64 = done.iter().map(|done| done.plain).sum();
    let stored: u64 = done.iter().map(|done| done.stored).sum();
    let busy: Duration = done.iter().map(|done| done.busy).sum();
    println!(
        "{:.2} s ({:.2} s of CPU, {:.0} MB/s a thread, ratio {:.2})",
        busy.as_secs_f64() / threads as f64,
        busy.as_secs_f64(),
        plain as f64 / 1e6 / busy.as_secs_f64(),
        plain as f64 / stored as f64
    );
}

#[derive(Default)]
struct Done {
    plain: u64,
    stored: u64,
    busy: Duration,
}

fn work(queue: &Mutex<Vec<PathBuf>>) -> Done {
    let (mut done, mut out) = (Done::default(), vec![0; lz4_flex::block::get_maximum_output_size(BLOCK)]);
    loop {
        let Some(path) = queue.lock().expect("no worker panics").pop() else { return done };
        // A running server removes files of its own.
        let Ok(bytes) = std::fs::read(&path) else { continue };
        for block in bytes.chunks(BLOCK) {
            let begin = Instant::now();
            let stored = lz4_flex::block::compress_into(block, &mut out).expect("the buffer is large enough");
            done.busy += begin.elapsed();
            done.plain += block.len() as u64;
            done.stored += stored as u64;
        }
    }
}

fn list(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory that can be read") {
        let entry = entry.expect("an entry");
        match entry.file_type().expect("a type") {
            kind if kind.is_dir() => list(&entry.path(), found),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}
