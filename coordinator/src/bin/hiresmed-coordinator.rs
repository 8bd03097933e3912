//! The coordinator as a process of its own: the HTTP API and the dispatchers, and the sites' administration.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Parser, Subcommand};
use hiresmed_coordinator::{
    Ledger, Sites, serve,
    settings::{Overrides, Settings},
    sites::{
        Role, SiteSettings,
        key::{self, KeyId},
    },
};
use hiresmed_protocol::SiteId;
use hiresmed_services::settings::read;
use hiresmed_telemetry::traces::Export;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The coordinator of a hiresmed fleet
#[derive(Parser)]
#[command(name = "hiresmed-coordinator", version)]
struct Arguments {
    /// Settings in TOML
    #[arg(long, global = true, env = "HIRESMED_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the HTTP API and dispatch what is open
    Serve,
    /// Sites and their API keys, straight in the store: how a fleet gets its first operator
    Site {
        #[command(subcommand)]
        command: SiteCommand,
    },
}

#[derive(Subcommand)]
enum SiteCommand {
    /// Create a site, or do nothing where it exists
    Create {
        /// 1 to 48 lower-case letters, digits and hyphens
        site: SiteId,
    },
    /// Make an API key and print it; it is shown this once
    CreateKey {
        /// The site that it speaks for
        site: SiteId,
        /// What it allows: submit, read, operate
        #[arg(long = "role", required = true, value_parser = role)]
        roles: Vec<Role>,
    },
    /// Refuse an API key from now on
    RevokeKey {
        /// The key's site
        site: SiteId,
        /// The key's id: its middle part
        key: KeyId,
    },
    /// List sites and their keys
    List,
}

fn role(text: &str) -> Result<Role, String> {
    let known = [Role::Submit, Role::Read, Role::Operate];
    known.into_iter().find(|role| role.as_str() == text).ok_or_else(|| "use submit, read or operate".to_owned())
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hiresmed-coordinator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let mut settings = read::<Settings>(arguments.config.as_deref())?;
    arguments.overrides.apply(&mut settings);
    let _export = match arguments.command {
        Command::Serve => settings.log.start("hiresmed-coordinator")?,
        // What it prints is its result.
        Command::Site { .. } => Export::default(),
    };
    let runtime = tokio::runtime::Runtime::new().context("the program cannot start its threads")?;
    runtime.block_on(async {
        match arguments.command {
            Command::Serve => serve(&settings).await,
            Command::Site { command } => administer(&settings, command).await,
        }
    })
}

async fn serve(settings: &Settings) -> Result<()> {
    let stop = CancellationToken::new();
    let mut signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let stopping = stop.clone();
    tokio::spawn(async move {
        let [terminate, interrupt] = &mut signals;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop");
        stopping.cancel();
    });
    let services = hiresmed_services::connect(&settings.services).await?;
    serve::serve(settings, services, stop).await
}

async fn administer(settings: &Settings, command: SiteCommand) -> Result<()> {
    let store = hiresmed_services::connect(&settings.services).await?.store;
    let sites = Sites::new(Ledger::new(store));
    match command {
        SiteCommand::Create { site } => {
            if sites.get(&site).await?.is_none() {
                sites.put(&site, SiteSettings::default()).await?;
            }
            eprintln!("site {site} exists; `hiresmed-coordinator site create-key {site} --role …` makes a key for it");
        }
        SiteCommand::CreateKey { site, roles } => {
            if sites.get(&site).await?.is_none() {
                bail!("there is no site `{site}`; `hiresmed-coordinator site create {site}` creates it");
            }
            let (record, secret) = sites.create_key(&site, roles.into_iter().collect()).await?;
            println!("{}", key::text(&record.key, &secret));
            eprintln!("keep it: it is not shown again");
        }
        SiteCommand::RevokeKey { site, key } => {
            let revoked = sites.revoke(&site, &key).await?;
            revoked.ok_or_else(|| {
                anyhow!("site {site} has no key `{key}`; `hiresmed-coordinator site list` shows them")
            })?;
            eprintln!("key {key} is refused from now on");
        }
        SiteCommand::List => {
            for id in sites.list().await? {
                println!("{id}");
                for record in sites.keys(&id).await? {
                    let roles: Vec<_> = record.roles.iter().map(|role| role.as_str()).collect();
                    let state = if record.revoked_at.is_some() { "revoked" } else { "valid" };
                    println!("  {}  {state}  {}  {}", record.key, record.created_at, roles.join(" "));
                }
            }
        }
    }
    Ok(())
}
