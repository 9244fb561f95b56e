//! Rows of a Parquet file: one column of texts, and one of ids.

use std::{fs::File, path::Path};

use anyhow::{Context, bail};
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row, reader::RowIter},
    schema::types::Type,
};

use super::RowId;

/// Reads texts and ids row by row, a row group at a time.
pub struct TextRows {
    rows: RowIter<'static>,
    text: String,
    id: Option<String>,
    n_rows: u64,
}

impl TextRows {
    /// Opens a file; `text` and `id` are the names of columns.
    ///
    /// # Errors
    /// When it is no Parquet file, or has no such column of strings, or of strings or whole numbers.
    pub fn open(path: &Path, text: &str, id: Option<&str>) -> anyhow::Result<Self> {
        let shown = path.display();
        let file = File::open(path).with_context(|| shown.to_string())?;
        let reader = SerializedFileReader::new(file).with_context(|| shown.to_string())?;
        let metadata = reader.metadata().file_metadata();
        let n_rows = u64::try_from(metadata.num_rows()).unwrap_or(0);
        let schema = metadata.schema();
        let fields = schema.get_fields();
        let mut chosen = Vec::new();
        for name in std::iter::once(text).chain(id) {
            let Some(field) = fields.iter().find(|field| field.name() == name) else {
                let names: Vec<&str> = fields.iter().map(|field| field.name()).collect();
                bail!(
                    "{shown} has no column \"{name}\": there are {}",
                    names.join(", ")
                );
            };
            if !chosen.contains(field) {
                chosen.push(field.clone());
            }
        }
        let projection = Type::group_type_builder(schema.name()).with_fields(chosen);
        let projection = projection.build()?;
        let rows = RowIter::from_file_into(Box::new(reader)).project(Some(projection))?;
        Ok(Self {
            rows,
            text: text.to_owned(),
            id: id.map(str::to_owned),
            n_rows,
        })
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    fn read(&self, row: &Row) -> anyhow::Result<(Option<RowId>, String)> {
        let of = |name: &str| {
            let mut columns = row.get_column_iter();
            columns
                .find(|(column, _)| *column == name)
                .map(|(_, field)| field)
        };
        let text = match of(&self.text) {
            Some(Field::Str(text)) => text.clone(),
            Some(Field::Null) | None => bail!("column \"{}\" is null", self.text),
            Some(_) => bail!("column \"{}\" is not of strings", self.text),
        };
        let Some(name) = &self.id else {
            return Ok((None, text));
        };
        let id = match of(name) {
            Some(Field::Str(id)) => RowId::Text(id.clone()),
            Some(Field::Byte(id)) => RowId::Number((*id).into()),
            Some(Field::Short(id)) => RowId::Number((*id).into()),
            Some(Field::Int(id)) => RowId::Number((*id).into()),
            Some(Field::Long(id)) => RowId::Number(*id),
            Some(Field::UByte(id)) => RowId::Number((*id).into()),
            Some(Field::UShort(id)) => RowId::Number((*id).into()),
            Some(Field::UInt(id)) => RowId::Number((*id).into()),
            Some(Field::ULong(id)) => RowId::Number(i64::try_from(*id)?),
            Some(Field::Null) | None => bail!("column \"{name}\" is null"),
            Some(_) => bail!("column \"{name}\" is neither of strings nor of whole numbers"),
        };
        Ok((Some(id), text))
    }

    /// The next row, or what is wrong with it; none at the end.
    ///
    /// # Errors
    /// When the file cannot be read on: then no row after it can be trusted.
    #[expect(
        clippy::type_complexity,
        reason = "a row, what is wrong with it, or the end"
    )]
    pub fn next_row(&mut self) -> anyhow::Result<Option<anyhow::Result<(Option<RowId>, String)>>> {
        match self.rows.next() {
            None => Ok(None),
            Some(row) => Ok(Some(self.read(&row?))),
        }
    }
}
