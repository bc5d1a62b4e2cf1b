//! The pipeline: compression and encryption of messages as a layer of its own, over any link.
//!
//! | File | What it does |
//! |---|---|
//! | `link.rs` | [`Piped`]: a link whose messages go through it |
//! | `handshake.rs` | how both sides agree |
//! | `steps.rs` | what is done to one message, and undone |
//! | `compress.rs` | the compressions, on contexts of the thread |
//! | `noise.rs` | encryption, on top of `snow` |
//! | `reload.rs` | keys that are read again |
//!
//! In a build without the features `compression` or `noise`, `no_compress.rs` and `no_noise.rs` stand
//! for them and refuse.

#[cfg_attr(not(feature = "compression"), path = "pipeline/no_compress.rs")]
mod compress;
mod handshake;
mod link;
#[cfg_attr(not(feature = "noise"), path = "pipeline/no_noise.rs")]
mod noise;
mod reload;
mod steps;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use network_system_wire::pipeline::{self as wire, Offer, Role};
use zeroize::Zeroizing;

use crate::config::{LinkConfig, Noise, Pipeline, PublicKey};
use crate::error::Result;
pub use link::Piped;
pub use reload::Pipelines;

/// Makes a key for Noise: the private one as 64 hexadecimal digits, which is what a
/// [`NoiseKey`](crate::config::NoiseKey) has in its file and which is overwritten when it is dropped,
/// and the public one. The private one also does as a shared key.
///
/// # Errors
/// The system has no random bytes, or this build no Noise.
pub fn noise_key() -> Result<(Zeroizing<String>, PublicKey)> {
    noise::key()
}

/// A pipeline whose keys have been read: what links of one address are made with.
#[derive(Clone)]
pub struct ReadyPipeline(Arc<Inner>);

struct Inner {
    settings: Pipeline,
    /// Those that hold for handshakes from now on.
    noise: Option<RwLock<Arc<Keys>>>,
    /// Largest message.
    max_message: usize,
    open_timeout: Option<Duration>,
}

/// The settings of the encryption, and its secrets.
#[cfg_attr(
    not(feature = "noise"),
    expect(dead_code, reason = "nobody can use them")
)]
struct Keys {
    settings: Noise,
    psk: Option<Zeroizing<[u8; 32]>>,
    key: Option<Zeroizing<[u8; 32]>>,
}

impl ReadyPipeline {
    /// Reads what the pipeline of these settings needs, and the settings for the link below it, which
    /// has to carry a little more; `None` where there is no pipeline.
    ///
    /// # Errors
    /// A key cannot be read, or this build cannot do what is asked for.
    pub fn new(config: &LinkConfig, role: Role) -> Result<Option<(Self, LinkConfig)>> {
        let Some(settings) = &config.session.pipeline else {
            return Ok(None);
        };
        let max_message = config.session.max_message;
        let noise = settings.noise.as_ref();
        compress::check(settings.compress)?;
        noise::check(noise, role)?;
        let mut below = config.clone();
        below.session.pipeline = None;
        below.session.max_message = wire::frame_limit(max_message, noise.is_some());
        let noise = noise.map(Keys::read).transpose()?;
        let inner = Inner {
            settings: settings.clone(),
            noise: noise.map(|keys| RwLock::new(Arc::new(keys))),
            max_message,
            open_timeout: config.open_timeout,
        };
        Ok(Some((Self(Arc::new(inner)), below)))
    }

    /// Whether messages are encrypted.
    fn is_secret(&self) -> bool {
        self.0.noise.is_some()
    }

    /// The keys that hold now.
    fn keys(&self) -> Option<Arc<Keys>> {
        let keys = self.0.noise.as_ref()?;
        Some(keys.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// By when a link that begins to open now must have said why it cannot be.
    fn open_until(&self) -> Option<tokio::time::Instant> {
        crate::config::open_until(self.0.open_timeout)
    }

    /// What we begin with.
    fn offer(&self, role: Role) -> Result<Offer> {
        let noise = self.0.settings.noise.as_ref();
        Ok(Offer {
            role,
            accepts: compress::ACCEPTS,
            noise: noise.map(|noise| noise.pattern),
            random: match noise {
                Some(_) => noise::random()?,
                None => [0; 16],
            },
        })
    }
}

impl Keys {
    fn read(settings: &Noise) -> Result<Self> {
        let read = |key: &Option<_>| key.as_ref().map(crate::config::NoiseKey::read).transpose();
        if settings.danger_accept_any_peer {
            tracing::warn!("Noise accepts every peer, whatever its key: nothing says who it is");
        }
        Ok(Self {
            psk: read(&settings.psk)?,
            key: read(&settings.key)?,
            settings: settings.clone(),
        })
    }
}

impl std::fmt::Debug for ReadyPipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the keys stay here
        f.debug_tuple("ReadyPipeline")
            .field(&self.0.settings)
            .finish()
    }
}
