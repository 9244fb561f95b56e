//! The member `outputs`: the heads that a request asks for, by name.

use std::{borrow::Cow, fmt, sync::LazyLock};

use embedgate_core::Head;
use serde::{
    Deserialize, Deserializer,
    de::{self, EnumAccess, VariantAccess, Visitor},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

/// A head, by the name that requests have for it.
#[derive(Clone, Copy)]
pub(super) struct Output(pub(super) Head);

/// The names of all heads that requests ask for.
static NAMES: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| Head::named().map(|(_, names)| names.output).collect());

impl<'de> Deserialize<'de> for Output {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = Output;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an output")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Output, A::Error> {
                let (name, variant) = data.variant::<Cow<'_, str>>()?;
                variant.unit_variant()?;
                let head = Head::of_output(&name);
                head.map(Output)
                    .ok_or_else(|| de::Error::unknown_variant(&name, &NAMES))
            }
        }
        deserializer.deserialize_enum("Output", &NAMES, Name)
    }
}

impl PartialSchema for Output {
    fn schema() -> RefOr<Schema> {
        let names = ObjectBuilder::new().schema_type(Type::String);
        names.enum_values(Some(NAMES.iter().copied())).into()
    }
}

impl ToSchema for Output {
    fn name() -> Cow<'static, str> {
        "Output".into()
    }
}
