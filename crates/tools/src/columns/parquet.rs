//! Parquet: a row a text, with the members of the JSON lines; ids as the first column, lexical weights as two.

mod levels;
mod schema;

use std::{fs::File, sync::Arc};

use embedgate_core::{Head, HeadForm, HeadValue, Outputs};
use embedgate_request::Embedding;
use parquet::{
    data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int32Type, Int64Type},
    file::writer::{SerializedFileWriter, SerializedRowGroupWriter},
    schema::parser::parse_message_type,
};

use self::{
    levels::Levels,
    schema::{properties, schema},
};
use super::RowId;

/// Numbers that are held until they make a row group: 16 MiB, and a few times that while it is written.
const GROUP_NUMBERS: usize = 4 << 20;

/// The kind of the ids in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// Whole numbers.
    Number,
    /// Texts.
    Text,
}

/// A Parquet file in the making.
pub struct Parquet {
    ids: Option<IdKind>,
    held_ids: Vec<RowId>,
    file: SerializedFileWriter<File>,
    outputs: Outputs,
    held: Vec<Embedding>,
    n_held: usize,
}

impl Parquet {
    /// Begins a file of what `outputs` has, and of ids.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(file: File, outputs: Outputs, ids: Option<IdKind>) -> anyhow::Result<Self> {
        let schema = Arc::new(parse_message_type(&schema(outputs, ids))?);
        let properties = Arc::new(properties(&schema));
        Ok(Self {
            file: SerializedFileWriter::new(file, schema, properties)?,
            outputs,
            ids,
            held_ids: Vec::new(),
            held: Vec::new(),
            n_held: 0,
        })
    }

    /// Takes the results of the next texts, with their ids in a file that has some.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(
        &mut self,
        rows: impl IntoIterator<Item = (Option<RowId>, Embedding)>,
    ) -> anyhow::Result<()> {
        for (id, embedding) in rows {
            self.held_ids.extend(id.filter(|_| self.ids.is_some()));
            let numbers = embedding.results.iter().map(|(_, value)| match value {
                HeadValue::Weights(sparse) => 2 * sparse.values.len(),
                value => value.numbers().len(),
            });
            self.n_held += numbers.sum::<usize>();
            self.held.push(embedding);
            if self.n_held >= GROUP_NUMBERS {
                self.write_group()?;
            }
        }
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> anyhow::Result<()> {
        if !self.held.is_empty() {
            self.write_group()?;
        }
        self.file.close()?;
        Ok(())
    }

    /// Columns in the order of the schema.
    fn write_group(&mut self) -> anyhow::Result<()> {
        let held = std::mem::take(&mut self.held);
        let ids = std::mem::take(&mut self.held_ids);
        self.n_held = 0;
        let mut group = self.file.next_row_group()?;
        if let Some(kind) = self.ids {
            write_ids(&mut group, kind, ids)?;
        }
        counts(&mut group, &held)?;
        for (head, _) in Head::named().filter(|(head, _)| self.outputs.has(*head)) {
            write_head(&mut group, head, &held)?;
        }
        group.close()?;
        Ok(())
    }
}

/// The columns of one head.
fn write_head(
    group: &mut SerializedRowGroupWriter<'_, File>,
    head: Head,
    held: &[Embedding],
) -> anyhow::Result<()> {
    let results = held.iter().map(|embedding| &embedding.results);
    match head.form() {
        HeadForm::Vector | HeadForm::Score => {
            let rows = results.filter_map(|row| Some(row.get(head)?.numbers()));
            let rows: Vec<&[f32]> = rows.collect();
            let levels = Levels::of_lists(rows.iter().map(|row| row.len()));
            column::<FloatType>(group, &rows.concat(), &levels)
        }
        HeadForm::Weights => {
            let sparse: Vec<_> = results.filter_map(|row| row.weights(head)).collect();
            let levels = Levels::of_lists(sparse.iter().map(|s| s.values.len()));
            let ids = sparse.iter().flat_map(|s| &s.indices);
            let ids: Vec<i32> = ids.map(|id| i32::try_from(*id)).collect::<Result<_, _>>()?;
            column::<Int32Type>(group, &ids, &levels)?;
            let values: Vec<&[f32]> = sparse.iter().map(|s| s.values.as_slice()).collect();
            column::<FloatType>(group, &values.concat(), &levels)
        }
        HeadForm::Rows { .. } => {
            let all: Vec<_> = results.filter_map(|row| row.rows(head)).collect();
            let levels = Levels::of_rows(all.iter().map(|m| (m.rows(), m.width)));
            let rows: Vec<&[f32]> = all.iter().map(|m| m.data.as_slice()).collect();
            column::<FloatType>(group, &rows.concat(), &levels)
        }
    }
}

fn write_ids(
    group: &mut SerializedRowGroupWriter<'_, File>,
    kind: IdKind,
    ids: Vec<RowId>,
) -> anyhow::Result<()> {
    match kind {
        IdKind::Number => {
            let numbers = ids.into_iter().map(|id| match id {
                RowId::Number(n) => Ok(n),
                RowId::Text(text) => anyhow::bail!(
                    "the id \"{text}\" is a text, and those before it are whole numbers"
                ),
            });
            let numbers: Vec<i64> = numbers.collect::<anyhow::Result<_>>()?;
            column::<Int64Type>(group, &numbers, &Levels::default())
        }
        IdKind::Text => {
            let texts = ids.into_iter().map(|id| match id {
                RowId::Text(text) => text.into_bytes().into(),
                RowId::Number(n) => n.to_string().into_bytes().into(),
            });
            let texts: Vec<ByteArray> = texts.collect();
            column::<ByteArrayType>(group, &texts, &Levels::default())
        }
    }
}

/// The tokens of each text, and of those that were cut, of the whole text.
fn counts(
    group: &mut SerializedRowGroupWriter<'_, File>,
    held: &[Embedding],
) -> anyhow::Result<()> {
    let number = |n: usize| i64::try_from(n);
    let tokens: Vec<i64> = held
        .iter()
        .map(|e| number(e.n_tokens))
        .collect::<Result<_, _>>()?;
    column::<Int64Type>(group, &tokens, &Levels::default())?;
    let is_cut = |e: &&Embedding| e.n_tokens_full > e.n_tokens;
    let full = held.iter().filter(is_cut).map(|e| number(e.n_tokens_full));
    let full: Vec<i64> = full.collect::<Result<_, _>>()?;
    let levels = Levels {
        definition: Some(held.iter().map(|e| i16::from(is_cut(&e))).collect()),
        repetition: None,
    };
    column::<Int64Type>(group, &full, &levels)
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
    levels: &Levels,
) -> anyhow::Result<()> {
    let Some(mut column) = group.next_column()? else {
        anyhow::bail!("the schema has too few columns");
    };
    let (definition, repetition) = (levels.definition.as_deref(), levels.repetition.as_deref());
    column
        .typed::<T>()
        .write_batch(values, definition, repetition)?;
    Ok(column.close()?)
}
