//! Typed values that users attach to a session.

use std::any::{Any, TypeId};
use std::collections::HashMap;

/// At most one value of each type. Boxed, so that a session without any pays one pointer.
#[allow(clippy::box_collection)]
#[derive(Default)]
pub(crate) struct Attributes(Option<Box<HashMap<TypeId, Box<dyn Any + Send + Sync>>>>);

impl Attributes {
    /// Stores `value`; the value of the same type that was there before, if any.
    pub(crate) fn set<T: Send + Sync + 'static>(&mut self, value: T) -> Option<T> {
        let old = self
            .0
            .get_or_insert_default()
            .insert(TypeId::of::<T>(), Box::new(value))?;
        old.downcast().ok().map(|old| *old)
    }

    /// The value of a type.
    pub(crate) fn get<T: 'static>(&self) -> Option<&T> {
        self.0.as_ref()?.get(&TypeId::of::<T>())?.downcast_ref()
    }

    /// Takes the value of a type out.
    pub(crate) fn remove<T: 'static>(&mut self) -> Option<T> {
        let old = self.0.as_mut()?.remove(&TypeId::of::<T>())?;
        old.downcast().ok().map(|old| *old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_of_each_type() {
        let mut attributes = Attributes::default();
        assert_eq!(attributes.get::<u8>(), None);
        assert_eq!(attributes.set(1_u8), None);
        assert_eq!(attributes.set("name".to_owned()), None);
        assert_eq!(attributes.set(2_u8), Some(1));
        assert_eq!(attributes.get::<u8>(), Some(&2));
        assert_eq!(attributes.remove::<String>().as_deref(), Some("name"));
        assert_eq!(attributes.remove::<String>(), None);
    }
}
