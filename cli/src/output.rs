//! What is printed. `println!`, `print!` and `eprintln!` of this crate are these: a reader that has gone ends the program
//! quietly, as it ends every other tool in a pipe, where the standard ones would panic.

use std::{
    fmt,
    io::{self, Write},
};

/// What a shell expects of a process that wrote to a closed pipe: 128 + SIGPIPE.
const BROKEN_PIPE: i32 = 141;

macro_rules! print {
    ($($text:tt)*) => { $crate::output::print(format_args!($($text)*)) };
}

macro_rules! println {
    ($($text:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($($text)*))) };
}

macro_rules! eprintln {
    ($($text:tt)*) => { $crate::output::tell(format_args!("{}\n", format_args!($($text)*))) };
}

/// Writes to standard output. Where that fails the program ends: without its result it is of no use.
pub fn print(text: fmt::Arguments<'_>) {
    let mut output = io::stdout().lock();
    let Err(error) = output.write_fmt(text).and_then(|()| output.flush()) else { return };
    drop(output);
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(BROKEN_PIPE);
    }
    tell(format_args!("error: standard output cannot be written: {error}; send it to another place\n"));
    std::process::exit(crate::failure::FAILED.into());
}

/// Writes to standard error. Where that fails nobody listens, and the work goes on.
pub fn tell(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}
