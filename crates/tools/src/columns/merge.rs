//! Several Parquet files of one schema as one: their row groups are copied as they are.

use std::{fs::File, path::Path, sync::Arc};

use anyhow::{Context, bail};
use parquet::{
    column::writer::ColumnCloseResult,
    file::{
        metadata::{PageIndexPolicy, ParquetMetaDataReader},
        properties::WriterProperties,
        writer::SerializedFileWriter,
    },
};

/// Writes the rows of all parts, in their order.
///
/// # Errors
/// When a part cannot be read, has another schema than the first, or the output cannot be written.
pub fn merge(parts: &[impl AsRef<Path>], output: File) -> anyhow::Result<()> {
    let open = |path: &Path| -> anyhow::Result<_> {
        let file = File::open(path)?;
        let reader = ParquetMetaDataReader::new();
        let reader = reader.with_page_index_policy(PageIndexPolicy::Optional);
        let metadata = reader.parse_and_finish(&file)?;
        Ok((file, metadata))
    };
    let mut writer: Option<SerializedFileWriter<File>> = None;
    let mut output = Some(output);
    for path in parts {
        let path = path.as_ref();
        let (file, metadata) = open(path).with_context(|| path.display().to_string())?;
        let schema = metadata.file_metadata().schema_descr().root_schema_ptr();
        if let Some(output) = output.take() {
            let properties = Arc::new(WriterProperties::builder().build());
            let schema = Arc::clone(&schema);
            writer = Some(SerializedFileWriter::new(output, schema, properties)?);
        }
        let Some(writer) = &mut writer else {
            continue;
        };
        if *writer.schema_descr().root_schema() != *schema {
            bail!("{} has other columns than the first part", path.display());
        }
        for (g, group) in metadata.row_groups().iter().enumerate() {
            let mut copy = writer.next_row_group()?;
            for (c, column) in group.columns().iter().enumerate() {
                let index = metadata.page_index();
                let copied = ColumnCloseResult {
                    bytes_written: u64::try_from(column.compressed_size())?,
                    rows_written: u64::try_from(group.num_rows())?,
                    metadata: column.clone(),
                    bloom_filter: None,
                    column_index: index.and_then(|index| index.column_index(g, c)).cloned(),
                    offset_index: index.and_then(|index| index.offset_index(g, c)).cloned(),
                };
                copy.append_column(&file, copied)?;
            }
            copy.close()?;
        }
    }
    if let Some(writer) = writer {
        writer.close()?;
    }
    Ok(())
}
