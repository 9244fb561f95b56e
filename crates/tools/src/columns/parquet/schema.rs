//! The schema of a Parquet file, and how its columns are written.

use std::sync::Arc;

use embedgate_core::{Head, HeadForm, HeadNames, Outputs};
use parquet::{
    basic::{Compression, Encoding, Type, ZstdLevel},
    file::properties::WriterProperties,
    schema::types::{SchemaDescriptor, TypePtr},
};

use super::IdKind;

/// The columns of what `outputs` has, and of ids.
pub(super) fn schema(outputs: Outputs, ids: Option<IdKind>) -> String {
    let list = |name: &str, of: &str| {
        format!("required group {name} (LIST) {{ repeated group list {{ {of} }} }}")
    };
    let float = "required float element;";
    let mut columns = match ids {
        None => Vec::new(),
        Some(IdKind::Number) => vec!["required int64 id;".to_owned()],
        Some(IdKind::Text) => vec!["required binary id (STRING);".to_owned()],
    };
    columns.extend([
        "required int64 tokens;".to_owned(),
        "optional int64 truncated_from;".to_owned(),
    ]);
    for (head, names) in Head::named().filter(|(head, _)| outputs.has(*head)) {
        let HeadNames { output, member, .. } = names;
        match head.form() {
            HeadForm::Vector | HeadForm::Score => columns.push(list(member, float)),
            HeadForm::Weights => columns.extend([
                list(&format!("{output}_indices"), "required int32 element;"),
                list(&format!("{output}_values"), float),
            ]),
            HeadForm::Rows { .. } => columns.push(list(member, &list("element", float))),
        }
    }
    format!("message embeddings {{ {} }}", columns.join(" "))
}

/// Numbers are seldom equal, so that a dictionary gains nothing; their bytes, sorted by place, are alike.
pub(super) fn properties(schema: &TypePtr) -> WriterProperties {
    let described = SchemaDescriptor::new(Arc::clone(schema));
    let floats = described
        .columns()
        .iter()
        .filter(|column| column.physical_type() == Type::FLOAT);
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_compression(Compression::ZSTD(ZstdLevel::default()));
    let properties = floats.fold(properties, |properties, column| {
        properties.set_column_encoding(column.path().clone(), Encoding::BYTE_STREAM_SPLIT)
    });
    properties.build()
}
