//! Whole repositories, as the binary writes them: read without us, and kept on other stores than a directory.

mod ground;
mod object_storage;
mod policies;
mod providers;
mod silent;
mod weather;
mod without_us;
