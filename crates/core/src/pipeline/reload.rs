//! Keys of Noise that are read again from their files: [`Pipelines`].

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Inner, Keys, ReadyPipeline};
use crate::error::Result;

/// The pipelines of the addresses that are bound, whose keys are read again together. Every clone means
/// the same. Links that are made need none: their pipeline is read for each.
#[derive(Clone, Default)]
pub struct Pipelines(Arc<Mutex<Vec<Weak<Inner>>>>);

impl Pipelines {
    /// Adds the pipeline of an address, for as long as it is in use.
    pub fn add(&self, pipeline: &ReadyPipeline) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(&pipeline.0));
    }

    /// Reads all keys again, for handshakes from now on; those that cannot be read stay as they were.
    ///
    /// # Errors
    /// The first file that cannot be used, and why.
    pub fn reload(&self) -> Result<()> {
        let all = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut result = Ok(());
        for pipeline in all.iter().filter_map(Weak::upgrade) {
            result = result.and(pipeline.read_again());
        }
        result
    }
}

impl std::fmt::Debug for Pipelines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipelines").finish_non_exhaustive()
    }
}

impl Inner {
    fn read_again(&self) -> Result<()> {
        let (Some(noise), Some(settings)) = (&self.noise, &self.settings.noise) else {
            return Ok(());
        };
        match Keys::read(settings) {
            Ok(keys) => {
                *noise.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
                tracing::info!("Noise: the keys were read again, and hold for new connections");
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "Noise: the old keys stay in use");
                Err(error)
            }
        }
    }
}
