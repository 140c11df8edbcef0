//! placeholder
use clap::Parser;

#[derive(Parser)]
enum Cli {
    Lab(gateway::lab::LabArgs),
}

fn main() -> std::process::ExitCode {
    let Cli::Lab(args) = Cli::parse();
    gateway::lab::run(args)
}
