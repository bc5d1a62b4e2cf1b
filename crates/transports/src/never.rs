//! What stands in for the link of a feature that is off: [`never`], for types that have no value.

/// A source and a sink of a type that holds an `Infallible`.
macro_rules! never {
    ($($link:ty),*) => {$(
        impl network_system_core::Source for $link {
            fn poll_fill(
                &mut self,
                _: &mut std::task::Context<'_>,
                _: &mut network_system_core::InQueue,
            ) -> std::task::Poll<network_system_core::Result<bool>> {
                match self.0 {}
            }
        }

        impl network_system_core::Sink for $link {
            fn encoding(&self) -> network_system_core::Encoding {
                match self.0 {}
            }

            fn poll_send(
                &mut self,
                _: &mut std::task::Context<'_>,
                _: &mut network_system_core::OutQueue,
            ) -> (
                network_system_core::Sent,
                std::task::Poll<network_system_core::Result<()>>,
            ) {
                match self.0 {}
            }

            fn poll_close(
                &mut self,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<network_system_core::Result<()>> {
                match self.0 {}
            }
        }
    )*};
}

pub(crate) use never;
