//! The machine, as the system tells of it: its cores, and its memory. Linux is asked, by the files that it shows; elsewhere the
//! answers are none.

pub mod cores;
pub mod memory;
