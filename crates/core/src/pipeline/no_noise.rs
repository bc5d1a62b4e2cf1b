//! What stands for the encryption in a build without the feature `noise`.

use network_system_wire::pipeline::{Header, Role};

use super::Keys;
use zeroize::Zeroizing;

use crate::config::{Noise, PublicKey};
use crate::error::{Error, ErrorKind, Result};
use crate::link::NoiseInfo;

fn missing() -> Error {
    Error::new(ErrorKind::InvalidArgument, "encrypt messages")
        .because("this build has no Noise")
        .advice("build with the feature `noise`")
}

pub(super) fn check(noise: Option<&Noise>, _: Role) -> Result<()> {
    match noise {
        None => Ok(()),
        Some(_) => Err(missing()),
    }
}

pub(super) fn key() -> Result<(Zeroizing<String>, PublicKey)> {
    Err(missing())
}

pub(super) fn random() -> Result<[u8; 16]> {
    Err(missing())
}

/// Nobody can make one.
pub(super) enum Handshake {}

impl Handshake {
    pub(super) fn new(_: &Keys, _: Role, _: &[u8]) -> Result<Self> {
        Err(missing())
    }

    pub(super) fn is_finished(&self) -> bool {
        match *self {}
    }

    pub(super) fn is_my_turn(&self) -> bool {
        match *self {}
    }

    pub(super) fn write(&mut self) -> Result<Vec<u8>> {
        match *self {}
    }

    pub(super) fn read(&mut self, _: &[u8]) -> Result<()> {
        match *self {}
    }

    pub(super) fn finish(self) -> Result<(Cipher, NoiseInfo)> {
        match self {}
    }
}

/// Nobody can make one.
pub(super) enum Cipher {}

impl Cipher {
    pub(super) fn seal(
        &mut self,
        _: Header,
        _: &[u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<()> {
        match *self {}
    }

    pub(super) fn open(&mut self, _: &[u8], _: &mut Vec<u8>, _: &mut Vec<u8>) -> Result<Header> {
        match *self {}
    }
}
