//! Runs the sandbox for people and scripts, until it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rdm_sandbox::{ALICE, Flavour, Options, Sandbox};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "\
Runs an InvenioRDM-compatible repository on 127.0.0.1, with sample records.

Usage: rdm-sandbox [OPTIONS]

  --port N             listen on this port (default: a free one)
  --data DIR           keep uploaded files there (default: a temporary directory)
  --empty              without sample records
  --flavour FLAVOUR    v14, v12, tuwien or zenodo, with the settings that go with it; comes before others
  --mode MODE          how file content is sent: ranges (default), ignored, v12 or redirect
  --latency MS         wait before each answer
  --bandwidth BYTES    send file content at so many bytes per second
  --generate-records N with N more records, made when they are asked for: gen00-00000 and on
  --generate-files M   with M small files in each of these (default: 1000)
  --big-size BYTES     size of the large sample file (default: 300000000)
  --env-file FILE      write INVENIORDM_URL= and INVENIORDM_TOKEN= lines there

Prints `ready URL` once it answers. Tokens: alice-token (owner of the samples), bob-token and
admin-token. Scripts control it under /sandbox/: counts, reset-counts, requests, faults, mode,
knobs, records and publish. Stops at SIGTERM and SIGINT.";

/// What was asked for on the command line.
struct Arguments {
    options: Options,
    empty: bool,
    env_file: Option<PathBuf>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
        let mut arguments = Arguments {
            options: Options::default(),
            empty: false,
            env_file: None,
        };
        while let Some(word) = words.next() {
            let (name, given) = match word.split_once('=') {
                Some((name, value)) => (name.to_string(), Some(value.to_string())),
                None => (word, None),
            };
            let mut value = || {
                given
                    .clone()
                    .or_else(|| words.next())
                    .ok_or_else(|| format!("{name} needs a value"))
            };
            let options = &mut arguments.options;
            match name.as_str() {
                "--help" | "-h" => return Ok(None),
                "--empty" => arguments.empty = true,
                "--port" => options.port = number(&name, &value()?)?,
                "--data" => options.data = Some(value()?.into()),
                "--flavour" => options.knobs = value()?.parse::<Flavour>()?.knobs(),
                "--mode" => options.knobs.mode = value()?.parse()?,
                "--latency" => options.knobs.latency = Duration::from_millis(number(&name, &value()?)?),
                "--bandwidth" => options.knobs.bandwidth = Some(number(&name, &value()?)?),
                "--generate-records" => {
                    let files = options.generated.map_or(1000, |(_, files)| files);
                    options.generated = Some((number(&name, &value()?)?, files));
                }
                "--generate-files" => {
                    let records = options.generated.map_or(0, |(records, _)| records);
                    options.generated = Some((records, number(&name, &value()?)?));
                }
                "--big-size" => options.big_size = number(&name, &value()?)?,
                "--env-file" => arguments.env_file = Some(value()?.into()),
                _ => return Err(format!("unknown argument {name}")),
            }
        }
        Ok(Some(arguments))
    }
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{name}: {text:?} is not a number that fits"))
}

fn run(arguments: Arguments) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Signals are caught from here on, so that none is missed once `ready` is out.
    let (mut terminate, mut interrupt) = {
        let _guard = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let sandbox = Sandbox::try_start(arguments.options)?;
    if !arguments.empty {
        sandbox.seed_samples();
    }
    if let Some(file) = arguments.env_file {
        std::fs::write(
            file,
            format!("INVENIORDM_URL={}\nINVENIORDM_TOKEN={ALICE}\n", sandbox.url()),
        )?;
    }
    println!("ready {}", sandbox.url());
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    Ok(())
}

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => match run(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("rdm-sandbox: {error}");
                ExitCode::FAILURE
            }
        },
        Ok(None) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("rdm-sandbox: {error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}
