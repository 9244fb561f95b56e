//! Reads the tensors of a model folder: safetensors, sharded safetensors, or PyTorch's zip of pickles.
//!
//! [`Weights`] finds a tensor by its name, whichever file holds it, and reads it as f32. Nothing is mapped, nothing is held
//! twice. Sizes are checked against the file before memory is asked for. It knows no architecture: shapes and the adapter that is
//! applied come from its callers, the backends.

mod adapter;
mod dtype;
mod error;
mod file;
mod numbers;
mod pickle;
mod progress;
mod pth;
mod safetensors;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use embedgate_core::ModelFolder;

pub use self::error::WeightsError;
use self::{
    adapter::{Adapter, Change},
    file::{File, open_files},
    progress::Progress,
    pth::PthFile,
};

/// Numbers that are held at once where a tensor is read in blocks: 16 MiB of them.
const BLOCK: usize = 1 << 22;

/// Heads that lie beside the encoder in files of their own, as FlagEmbedding saves them: file, and what its tensors are
/// called here.
const HEADS: [(&str, &str); 2] = [
    ("sparse_linear.pt", "sparse_linear."),
    ("colbert_linear.pt", "colbert_linear."),
];

/// The ends of names of buffers, which are computed from the configuration.
const BUFFERS: [&str; 4] = [".inv_freq", ".position_ids", ".cos_cached", ".sin_cached"];

/// The weights of one model folder, read tensor by tensor.
///
/// The encoder's tensors go by their names in transformers without the model's prefix, such as
/// `encoder.layer.0.output.dense.weight`; those of bge-m3's heads by their file's name, such as `sparse_linear.weight`;
/// those that lie beside the encoder and have no prefix, such as a classifier's, by their own.
pub struct Weights {
    folder: PathBuf,
    files: Vec<File>,
    /// The heads' files, each with what stands before its tensors' names.
    heads: Vec<(&'static str, File)>,
    /// The prefix of the encoder's names in the files, such as `roberta.`.
    prefix: String,
    /// The adapter that weights are read with.
    adapter: Option<Adapter>,
    progress: Progress,
    /// The full names of tensors that were read.
    read: Mutex<BTreeSet<String>>,
}

impl Weights {
    /// Opens the weights of a model's encoder, which are read with what its adapter adds to them, where one is applied.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn of_encoder(folder: &ModelFolder) -> Result<Self, WeightsError> {
        let mut weights = Self::open(&folder.encoder_path, folder.words())?;
        let adapters = folder.encoder.adapters.as_ref();
        weights.adapter = adapters.and_then(|adapters| {
            Some(Adapter {
                place: adapters.applied?,
                n: adapters.tasks.len(),
                scale: adapters.scale,
            })
        });
        let mut names = weights.files.iter().flat_map(File::names);
        if weights.adapter.is_some() && !names.any(|name| adapter::factors(name).is_some()) {
            let problem = "the weights have no adapters, and config.json and the model's key adapter name one";
            return Err(WeightsError::damaged(&folder.encoder_path, problem));
        }
        drop(names);
        Ok(weights)
    }

    /// Opens the weights of a model folder; reads the files' directories, no tensor yet. The prefix of the encoder's names is
    /// what stands before `words`, the name of the vectors of tokens.
    ///
    /// # Errors
    /// [`WeightsError`] when there are none, or a file is damaged.
    pub fn open(folder: &Path, words: &str) -> Result<Self, WeightsError> {
        let files = open_files(folder)?;
        let names: BTreeSet<&str> = files.iter().flat_map(File::names).collect();
        let original = adapter::original(words);
        let ends = [Some(words), original.as_deref()];
        let prefixes = names.iter().filter_map(|name| {
            let mut ends = ends.iter().flatten();
            ends.find_map(|end| name.strip_suffix(end))
        });
        let mut prefixes = prefixes.filter(|prefix| prefix.is_empty() || prefix.ends_with('.'));
        let prefix =
            prefixes
                .next()
                .map(str::to_owned)
                .ok_or_else(|| WeightsError::MissingTensor {
                    path: folder.to_owned(),
                    name: words.into(),
                })?;
        let total = files
            .iter()
            .flat_map(|file| file.names().filter_map(|name| file.shape(name)));
        let total_bytes: usize = total
            .map(|shape| shape.iter().product::<usize>().saturating_mul(4))
            .sum();
        let progress = Progress::new(folder, total_bytes as u64);
        let heads = HEADS
            .iter()
            .map(|(name, label)| (folder.join(name), *label))
            .filter(|(path, _)| path.exists());
        let heads = heads
            .map(|(path, label)| Ok((label, File::Pth(PthFile::open(&path)?))))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            folder: folder.to_owned(),
            files,
            heads,
            prefix,
            adapter: None,
            progress,
            read: Mutex::default(),
        })
    }

    /// The encoder's tensors with their shapes, without the model's prefix.
    #[must_use]
    pub fn names(&self) -> Vec<(String, Vec<usize>)> {
        let names = self
            .files
            .iter()
            .flat_map(|file| file.names().map(move |name| (name, file.shape(name))));
        let inner = names.filter_map(|(name, shape)| {
            let name = name.strip_prefix(&*self.prefix)?;
            Some((name.to_owned(), shape.unwrap_or_default()))
        });
        inner.collect()
    }

    /// Returns true when there is a tensor of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// Reads one tensor's numbers in row-major order, as f32; `name` goes without the model's prefix.
    ///
    /// # Errors
    /// [`WeightsError`] when it is missing, has another shape, or cannot be read whole.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, WeightsError> {
        let (file, full) = self.checked(name, shape)?;
        let mut values = file.read(&full)?;
        if let Some(change) = self.change(&full, shape)? {
            change.add_to(0, &mut values);
        }
        self.check_finite(name, 0, &values)?;
        self.progress.add(values.len());
        Ok(values)
    }

    /// Lends the rows of a matrix in their order, many at a time, with the number of the first of them. Beside what
    /// `use_them` keeps, 16 MiB are held, however large the matrix is; the matrix, where a checkpoint has it column by column.
    ///
    /// # Errors
    /// As [`Weights::values`]. What was lent before a part that cannot be read is of no use then.
    pub fn with_rows(
        &self,
        name: &str,
        [rows, width]: [usize; 2],
        mut use_them: impl FnMut(usize, &[f32]),
    ) -> Result<(), WeightsError> {
        let (file, full) = self.checked(name, &[rows, width])?;
        let change = self.change(&full, &[rows, width])?;
        let at_once = (BLOCK / width.max(1)).max(1);
        let (mut first, mut all_finite) = (0, Ok(()));
        let mut changed = Vec::new();
        file.read_blocks(&full, at_once * width, &mut |values| {
            let values = match &change {
                None => values,
                Some(change) => {
                    changed.clear();
                    changed.extend_from_slice(values);
                    change.add_to(first, &mut changed);
                    &changed
                }
            };
            if all_finite.is_ok() {
                all_finite = self.check_finite(name, first * width, values);
            }
            use_them(first, values);
            self.progress.add(values.len());
            first += at_once;
        })?;
        all_finite
    }

    /// Reads some rows of a matrix, which is read once; a row is empty where the matrix has fewer.
    ///
    /// # Errors
    /// As [`Weights::values`].
    pub fn rows(
        &self,
        name: &str,
        shape: [usize; 2],
        wanted: &[usize],
    ) -> Result<Vec<Vec<f32>>, WeightsError> {
        let width = shape[1];
        let mut found = vec![Vec::new(); wanted.len()];
        self.with_rows(name, shape, |first, values| {
            let rows = values.chunks_exact(width.max(1));
            for (row, found) in wanted.iter().zip(&mut found) {
                if let Some(values) = row.checked_sub(first).and_then(|at| rows.clone().nth(at)) {
                    *found = values.to_vec();
                }
            }
        })?;
        Ok(found)
    }

    /// Checks that all tensors of some layers were read. `layers` are the beginnings of their names, without the model's prefix.
    ///
    /// # Errors
    /// [`WeightsError::Unread`] names the first that was not: the model computes with it, and who read the others does not.
    pub fn check_read<'a>(
        &self,
        layers: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), WeightsError> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let layers: BTreeSet<String> = layers
            .into_iter()
            .map(|layer| format!("{}{layer}", self.prefix))
            .collect();
        let mut names = self.files.iter().flat_map(File::names);
        let is_unread = |name: &&str| {
            let is_buffer = BUFFERS.iter().any(|end| name.ends_with(end));
            !is_buffer
                && !read.contains(*name)
                && layers.iter().any(|layer| name.starts_with(layer.as_str()))
        };
        match names.find(is_unread) {
            None => Ok(()),
            Some(name) => Err(WeightsError::Unread {
                path: self.folder.clone(),
                name: name.to_owned(),
            }),
        }
    }

    fn check_finite(&self, name: &str, first: usize, values: &[f32]) -> Result<(), WeightsError> {
        // Nothing times a number that is not finite is none, and so is a sum with it: quicker than a look at each.
        let is_suspicious = |block: &[f32]| !block.iter().map(|x| x * 0.0).sum::<f32>().is_finite();
        let Some(block) = values.chunks(4096).position(is_suspicious) else {
            return Ok(());
        };
        let from = block * 4096;
        let found = values[from..].iter().position(|x| !x.is_finite());
        found.map_or(Ok(()), |at| {
            Err(WeightsError::NotFinite {
                path: self.folder.clone(),
                name: name.into(),
                value: values[from + at],
                place: first + from + at,
            })
        })
    }

    /// Finds a tensor, and checks that it has this shape.
    fn checked(&self, name: &str, shape: &[usize]) -> Result<(&File, String), WeightsError> {
        let (file, full) = self.find(name)?;
        let found = file.shape(&full).unwrap_or_default();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.insert(full.clone());
        // Without an adapter they change nothing.
        read.extend(adapter::factors(&full).into_iter().flatten());
        if found != shape {
            return Err(WeightsError::WrongShape {
                path: self.folder.clone(),
                name: name.into(),
                found,
                expected: shape.to_vec(),
            });
        }
        Ok((file, full))
    }

    /// Reads the change that the adapter makes to a tensor; none where there is none, or it changes no such tensor.
    fn change(&self, full: &str, shape: &[usize]) -> Result<Option<Change>, WeightsError> {
        let Some(((adapter, names), shape)) = self
            .adapter
            .zip(adapter::factors(full))
            .zip(shape.try_into().ok())
        else {
            return Ok(None);
        };
        let read = |name: &String| {
            let file = self.files.iter().find(|file| file.shape(name).is_some());
            let missing = || WeightsError::MissingTensor {
                path: self.folder.clone(),
                name: name.clone(),
            };
            let file = file.ok_or_else(missing)?;
            Ok((file.shape(name).unwrap_or_default(), file.read(name)?))
        };
        let [a, b] = &names;
        let factors = [read(a)?, read(b)?];
        let shapes = [&factors[0].0, &factors[1].0].map(Clone::clone);
        let change = adapter.change(factors, shape);
        let misfit = || {
            let problem = format!(
                "tensors \"{a}\" and \"{b}\" have shapes {:?} and {:?}, which do not fit a weight of {shape:?}",
                shapes[0], shapes[1]
            );
            WeightsError::damaged(&self.folder, problem)
        };
        change.map(Some).ok_or_else(misfit)
    }

    /// Old checkpoints call the normalization's weight and bias `gamma` and `beta`.
    fn find(&self, name: &str) -> Result<(&File, String), WeightsError> {
        let old = name
            .replace("LayerNorm.weight", "LayerNorm.gamma")
            .replace("LayerNorm.bias", "LayerNorm.beta");
        if let Some((label, file)) = self.heads.iter().find(|(label, _)| name.starts_with(label)) {
            let inner = name[label.len()..].to_owned();
            if file.shape(&inner).is_some() {
                return Ok((file, inner));
            }
        }
        let original = adapter::original(name);
        let stored = [Some(name), Some(&*old), original.as_deref()];
        let prefixed = stored.map(|name| Some(format!("{}{}", self.prefix, name?)));
        let unprefixed = [Some(name.to_owned()), original.clone()];
        for full in prefixed.into_iter().chain(unprefixed).flatten() {
            if let Some(file) = self.files.iter().find(|file| file.shape(&full).is_some()) {
                return Ok((file, full));
            }
            let format = self.files.iter().find_map(|file| file.other_format(&full));
            if let Some(format) = format {
                return Err(WeightsError::OtherFormat {
                    path: self.folder.clone(),
                    name: name.into(),
                    format: format.into(),
                });
            }
        }
        Err(WeightsError::MissingTensor {
            path: self.folder.clone(),
            name: name.into(),
        })
    }
}
