//! Owns reading JSON of which not every field can be trusted to have its type: an odd field is
//! skipped and remembered instead of failing the whole document. Streams, buffers nothing.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// A field as it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Field<T> {
    /// Not there, or null.
    #[default]
    Absent,
    /// There, with the right type.
    Value(T),
    /// There, with a wrong type.
    Odd,
}

impl<T> Field<T> {
    /// The value, if any. The name of an odd field is noted, unless there is one already.
    pub(super) fn take(self, name: &'static str, odd: &mut Option<&'static str>) -> Option<T> {
        match self {
            Self::Absent => None,
            Self::Value(value) => Some(value),
            Self::Odd => {
                odd.get_or_insert(name);
                None
            }
        }
    }
}

/// What can be read from one kind of JSON value; the other kinds are odd.
pub(super) trait Lenient<'de>: Sized {
    fn from_text(_text: &str) -> Option<Self> {
        None
    }
    fn from_bool(_value: bool) -> Option<Self> {
        None
    }
    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
    fn from_seq<A: SeqAccess<'de>>(mut seq: A) -> Result<Option<Self>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

impl Lenient<'_> for String {
    fn from_text(text: &str) -> Option<Self> {
        Some(text.into())
    }
}

impl Lenient<'_> for bool {
    fn from_bool(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl Lenient<'_> for Time {
    fn from_text(text: &str) -> Option<Self> {
        text.parse::<Timestamp>().ok().map(Time)
    }
}

impl<'de> Lenient<'de> for BTreeMap<String, String> {
    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        let mut read = Some(Self::new());
        while let Some((key, value)) = map.next_entry::<String, Field<String>>()? {
            match (value, &mut read) {
                (Field::Value(value), Some(read)) => {
                    read.insert(key, value);
                }
                _ => read = None,
            }
        }
        Ok(read)
    }
}

impl<'de, T: Lenient<'de>> Lenient<'de> for Vec<Field<T>> {
    fn from_seq<A: SeqAccess<'de>>(mut seq: A) -> Result<Option<Self>, A::Error> {
        let mut read = Self::new();
        while let Some(element) = seq.next_element()? {
            read.push(element);
        }
        Ok(Some(read))
    }
}

/// Makes a struct of [`Field`]s readable from an object.
macro_rules! object {
    ($($name:ident),+) => {$(
        impl<'de> Lenient<'de> for $name {
            fn from_map<A: serde::de::MapAccess<'de>>(map: A) -> Result<Option<Self>, A::Error> {
                Self::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Some)
            }
        }
    )+};
}
pub(super) use object;

impl<'de, T: Lenient<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor(PhantomData))
    }
}

struct FieldVisitor<T>(PhantomData<T>);

fn known<T>(value: Option<T>) -> Field<T> {
    value.map_or(Field::Odd, Field::Value)
}

impl<'de, T: Lenient<'de>> Visitor<'de> for FieldVisitor<T> {
    type Value = Field<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Field::Absent)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Field::Absent)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(known(T::from_text(text)))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(known(T::from_bool(value)))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Field::Odd)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Field::Odd)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Field::Odd)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::from_map(map).map(known)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        T::from_seq(seq).map(known)
    }
}
