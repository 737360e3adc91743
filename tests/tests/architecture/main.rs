//! The architecture is a test: what may import what, how long a file may be, that no file is dead, that documents name what
//! exists, that every dependency is accounted for, and which words have no place here. Everything is read from the sources
//! of this tree; nothing is compiled.

mod crates;
mod documents;
mod modules;
mod sources;
mod words;
