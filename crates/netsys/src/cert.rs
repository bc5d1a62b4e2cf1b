//! `netsys cert`: an authority and certificates for development; and the certificate of
//! `netsys serve --self-signed`.

mod files;
pub mod issue;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use network_system::Address;
use network_system::config::{CertificateFiles, Pem};

use crate::config::{DEFAULT_LISTEN, Settings};
use crate::failure::{EXIT_CODES, Failure, Result};
use crate::{address, output};
use files::Folder;
use issue::{Authority, Purpose};

/// Where a server with a certificate of its own listens unless told otherwise.
const SECURE_LISTEN: &str = "tls://127.0.0.1:8443";

const EXAMPLES: &str = "\
Examples:
  netsys cert                                 ca.pem, server.pem, server.key for this machine
  netsys cert dev.example '*.dev.example'     for a server with these names
  netsys cert --client alice --client bob     also alice.pem, alice.key, bob.pem, bob.key
  netsys cert --out /tmp/tls --days 7         elsewhere, and for a week

What it makes is used like this:
  netsys serve --listen tls://127.0.0.1:8443 --tls-cert server.pem --tls-key server.key
  netsys connect --ca ca.pem tls://localhost:8443
  netsys serve … --client-ca ca.pem           and clients with --cert alice.pem --key alice.key

The authority in the folder (ca.pem and ca.key) is made when it is not there, and used again when it
is. These are for development: keys lie unencrypted beside each other.";

/// Make certificates for development: an authority, a server's, and clients'.
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct CertArgs {
    /// Names and IP addresses of the server [default: localhost 127.0.0.1 ::1]
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// A client's name; give it several times for several
    #[arg(long, value_name = "NAME")]
    client: Vec<String>,

    /// The folder for the files
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    out: PathBuf,

    /// How long the certificates are valid, at most 825; the authority for ten years
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=825))]
    days: u32,

    /// Replace files that are there (but never the authority)
    #[arg(long)]
    force: bool,
}

/// Makes the files.
///
/// # Errors
/// A file is there already or cannot be written, or a name makes no sense.
pub fn run(args: &CertArgs) -> Result<ExitCode> {
    let folder = Folder::new(&args.out, args.force)?;
    let own: Vec<String> = OWN_NAMES.iter().map(|name| (*name).to_owned()).collect();
    let names = if args.names.is_empty() {
        &own
    } else {
        &args.names
    };
    let mut wanted: Vec<(&str, &[String], Purpose)> = vec![("server", names, Purpose::Server)];
    for client in &args.client {
        wanted.push((client, std::slice::from_ref(client), Purpose::Client));
    }
    // before anything is made
    for (n, (file, ..)) in wanted.iter().enumerate() {
        folder.check(file)?;
        // also where systems take both for the same file
        let same = |(other, ..): &(&str, _, _)| other.eq_ignore_ascii_case(file);
        if wanted.iter().take(n).any(same) {
            return Err(Failure::usage(format_args!(
                "two certificates would be in {file}.pem"
            )));
        }
    }
    let authority = match folder.authority()? {
        Some((certificate, key)) => Authority::read(&certificate, &key)?,
        None => {
            let authority = Authority::new()?;
            folder.write("ca", authority.certificate(), &authority.key())?;
            authority
        }
    };
    for (file, names, purpose) in wanted {
        let (certificate, key) = authority.issue(names, purpose, args.days)?;
        folder.write(file, &certificate, &key)?;
    }
    output::line(&how_to_use(args));
    Ok(ExitCode::SUCCESS)
}

fn how_to_use(args: &CertArgs) -> String {
    let file = |name: &str| args.out.join(name).display().to_string();
    let mut text = format!(
        "use them so:\n  netsys serve --listen {SECURE_LISTEN} --tls-cert {} --tls-key {}\n  \
         netsys connect --ca {} tls://localhost:8443",
        file("server.pem"),
        file("server.key"),
        file("ca.pem"),
    );
    if let Some(client) = args.client.first() {
        text += &format!(
            "\nwith `serve … --client-ca {}`, and then `connect … --cert {} --key {}`",
            file("ca.pem"),
            file(&format!("{client}.pem")),
            file(&format!("{client}.key")),
        );
    }
    text
}

/// The names of this machine to itself.
const OWN_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Gives the server a certificate of its own, for the hosts that it listens on.
///
/// # Errors
/// No address has TLS, or there are certificates already.
pub fn self_signed(settings: &mut Settings) -> Result<()> {
    let server = &mut settings.server;
    if !server.tls.certificates.is_empty() {
        return Err(Failure::usage(
            "--self-signed is in place of server.tls.certificates, which the settings have",
        ));
    }
    if server.listen == [DEFAULT_LISTEN] {
        server.listen = vec![SECURE_LISTEN.to_owned()];
    }
    let mut names: Vec<String> = OWN_NAMES.iter().map(|name| (*name).to_owned()).collect();
    let mut secure = false;
    for listen in &server.listen {
        let (address, link) = address::parse(listen, &server.session, &server.socket)?;
        if link.is_secure(&address) {
            secure = true;
            names.extend(host(&address));
        }
    }
    if !secure {
        return Err(Failure::usage(
            "--self-signed needs an address with TLS, such as --listen tls://127.0.0.1:8443",
        ));
    }
    names.dedup();
    let (certificate, key) = issue::self_signed(&names)?;
    let pair = CertificateFiles::new(Pem::text(certificate), Pem::text(key));
    server.tls.certificates = vec![pair];
    tracing::warn!("the certificate is self-signed and made for this run: for development only");
    Ok(())
}

/// The host that clients may connect by.
fn host(address: &Address) -> Option<String> {
    let host = address.host();
    let any = matches!(host, "" | "0.0.0.0" | "::") || OWN_NAMES.contains(&host);
    (address.port().is_some() && !any).then(|| host.to_owned())
}
