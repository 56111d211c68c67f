//! Snaptree: the desktop program.

mod action;
mod app;
mod dialogs;
mod dispatch;
mod model;
mod pages;
mod start;
#[cfg(test)]
mod tests;
mod text;
mod theme;
mod tree;
mod view;
mod widgets;

fn main() -> std::process::ExitCode {
    let Some(folders) = directories::ProjectDirs::from("", "", "snaptree") else {
        eprintln!("snaptree: there is no home directory");
        return std::process::ExitCode::FAILURE;
    };
    start::desktop(&folders.data_dir().join("machines"), None)
}
