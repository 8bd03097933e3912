//! The real `hiresmed` program: requests, deaths, several processes, bad input.

mod faults;
mod fixture;
mod harness;
mod kill;
mod requests;
mod train;
