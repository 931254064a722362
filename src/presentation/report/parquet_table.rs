//! Tables as Parquet, for pandas, polars and DuckDB.

use std::io::{self, Write};
use std::marker::PhantomData;
use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};

/// What a table has in its rows and columns.
pub(super) trait Columns: Sized + 'static {
    /// From what a row's values are taken.
    type Row<'a>;
    /// What a row is.
    const ROW: &'static str;
    /// The columns, with their names.
    const COLUMNS: &'static [(&'static str, Values<Self>)];
}

/// How a column's values are taken from a row.
pub(super) enum Values<T: Columns> {
    /// Text, which every row has.
    Text(for<'r, 'a> fn(&'r T::Row<'a>) -> String),
    /// A whole number, or null.
    Integer(for<'r, 'a> fn(&'r T::Row<'a>) -> Option<u64>),
    /// Seconds, or null.
    Seconds(for<'r, 'a> fn(&'r T::Row<'a>) -> Option<f64>),
}

/// A table while it is written: a row group per run, so that one run is in memory at a time.
pub(super) struct ParquetTable<W: Write + Send, T: Columns> {
    writer: SerializedFileWriter<W>,
    columns: PhantomData<T>,
}

impl<W: Write + Send, T: Columns> ParquetTable<W, T> {
    /// Begins a table.
    pub(super) fn begin(out: W) -> io::Result<ParquetTable<W, T>> {
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(out, schema::<T>()?, Arc::new(properties)).map_err(io::Error::other)?;
        Ok(ParquetTable { writer, columns: PhantomData })
    }

    /// Adds the rows of a run.
    pub(super) fn add(&mut self, rows: &[T::Row<'_>]) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group().map_err(io::Error::other)?;
        for (_, values) in T::COLUMNS {
            write_column(&mut group, values, rows).map_err(io::Error::other)?;
        }
        group.close().map_err(io::Error::other)?;
        Ok(())
    }

    /// Writes the end of the table.
    pub(super) fn finish(self) -> io::Result<()> {
        self.writer.close().map_err(io::Error::other)?;
        Ok(())
    }
}

fn schema<T: Columns>() -> io::Result<TypePtr> {
    let field = |(name, values): &(&str, Values<T>)| {
        let (physical, repetition, converted) = match values {
            Values::Text(_) => (Physical::BYTE_ARRAY, Repetition::REQUIRED, ConvertedType::UTF8),
            Values::Integer(_) => (Physical::INT64, Repetition::OPTIONAL, ConvertedType::NONE),
            Values::Seconds(_) => (Physical::DOUBLE, Repetition::OPTIONAL, ConvertedType::NONE),
        };
        let builder = Type::primitive_type_builder(name, physical);
        builder.with_repetition(repetition).with_converted_type(converted).build().map(Arc::new)
    };
    let fields = T::COLUMNS.iter().map(field).collect::<Result<Vec<TypePtr>, _>>().map_err(io::Error::other)?;
    Type::group_type_builder(T::ROW).with_fields(fields).build().map(Arc::new).map_err(io::Error::other)
}

fn write_column<W: Write + Send, T: Columns>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &Values<T>,
    rows: &[T::Row<'_>],
) -> parquet::errors::Result<()> {
    let Some(mut column) = group.next_column()? else { return Ok(()) };
    match values {
        Values::Text(take) => {
            let texts: Vec<ByteArray> = rows.iter().map(|row| ByteArray::from(take(row).into_bytes())).collect();
            column.typed::<ByteArrayType>().write_batch(&texts, None, None)?;
        }
        Values::Integer(take) => {
            let (present, levels) = with_levels(rows, |row| take(row).map(|value| value as i64));
            column.typed::<Int64Type>().write_batch(&present, Some(&levels), None)?;
        }
        Values::Seconds(take) => {
            let (present, levels) = with_levels(rows, take);
            column.typed::<DoubleType>().write_batch(&present, Some(&levels), None)?;
        }
    }
    column.close()
}

/// The values that there are, and by row whether there is one.
fn with_levels<R, T>(rows: &[R], take: impl Fn(&R) -> Option<T>) -> (Vec<T>, Vec<i16>) {
    let values: Vec<Option<T>> = rows.iter().map(take).collect();
    let levels = values.iter().map(|value| i16::from(value.is_some())).collect();
    (values.into_iter().flatten().collect(), levels)
}
