//! Snaptree: the desktop program, and the command line as its subcommands.

mod action;
mod app;
mod cli;
mod demo;
mod dialogs;
mod dispatch;
mod export;
mod model;
mod pages;
mod service;
mod start;
#[cfg(test)]
mod tests;
mod text;
mod theme;
mod tree;
mod view;
mod viewer;
mod widgets;

fn main() -> std::process::ExitCode {
    cli::main()
}
