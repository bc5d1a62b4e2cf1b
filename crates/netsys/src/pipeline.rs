//! The options about compression and encryption, and `netsys noise-key`, which makes the keys.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use network_system::config::{Compression, Noise, PublicKey, SessionConfig};

use crate::failure::{EXIT_CODES, Failure, Result};
use crate::output;

/// How messages go on their way.
#[derive(Args, Clone, Debug, Default)]
pub struct PipelineArgs {
    /// Compress messages: none, lz4, deflate or zstd, with a level as zstd:19; the peer needs a
    /// pipeline, too
    #[arg(long, value_name = "HOW")]
    compress: Option<Compression>,

    /// Encrypt with Noise and the shared key in this file; `netsys noise-key` makes one
    #[arg(long, value_name = "FILE", conflicts_with = "noise_key_file")]
    noise_psk_file: Option<PathBuf>,

    /// Encrypt with Noise and our private key in this file
    #[arg(long, value_name = "FILE", requires = "noise_peer")]
    noise_key_file: Option<PathBuf>,

    /// Noise: the public key of a peer to accept; give it several times for several
    #[arg(long, value_name = "KEY", requires = "noise_key_file")]
    noise_peer: Vec<PublicKey>,

    /// Noise: the handshake with --noise-key-file
    #[arg(long, value_enum, default_value = "xx", requires = "noise_key_file")]
    noise_pattern: Keyed,
}

/// A handshake with a key pair on each side.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Keyed {
    /// Both show their keys
    #[default]
    Xx,
    /// The client knows the server's key, which saves a message
    Ik,
}

impl PipelineArgs {
    /// Puts what was given into the settings.
    pub fn apply(&self, session: &mut SessionConfig) {
        if let Some(compress) = self.compress {
            session.pipeline.get_or_insert_default().compress = compress;
        }
        let noise = match (&self.noise_psk_file, &self.noise_key_file) {
            (Some(file), _) => Noise::psk(&**file),
            (None, Some(file)) => {
                let noise = match self.noise_pattern {
                    Keyed::Xx => Noise::xx(&**file),
                    Keyed::Ik => Noise::ik(&**file),
                };
                self.noise_peer.iter().copied().fold(noise, Noise::peer)
            }
            (None, None) => return,
        };
        session.pipeline.get_or_insert_default().noise = Some(noise);
    }
}

const EXAMPLES: &str = "\
Examples:
  netsys noise-key shared.key         a key; both sides get the same file and use it as
                                      --noise-psk-file shared.key
  netsys noise-key server.key         or one for each side, of which the other needs the public
  netsys noise-key client.key         key, that is printed:
  netsys serve --noise-key-file server.key --noise-peer CLIENT'S
  netsys connect --noise-key-file client.key --noise-peer SERVER'S tcp://127.0.0.1:8080

The file may be read by its owner only. It is never replaced.";

/// Make a key for encryption with Noise, and print its public key.
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct NoiseKeyArgs {
    /// The file for the key
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Makes a key.
///
/// # Errors
/// The file is there already, or cannot be written.
pub fn run(args: &NoiseKeyArgs) -> Result<ExitCode> {
    let pair = network_system::noise_key()?;
    let (key, public) = pair;
    write(&args.file, &format!("{}\n", *key))
        .map_err(|error| Failure::io(format_args!("write {}", args.file.display()), &error))?;
    output::line(&format!("{public}"));
    Ok(ExitCode::SUCCESS)
}

fn write(file: &Path, content: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(file)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}
