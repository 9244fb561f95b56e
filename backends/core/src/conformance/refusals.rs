//! The requests that every backend must refuse.

use crate::{Backend, BackendError, Head, Outputs, TokenBatch};

/// Checks that an output that the model does not give is refused, alone and together with outputs that it gives.
pub(super) fn refused_outputs(backend: &mut dyn Backend) -> Result<(), String> {
    let available = backend.info().outputs;
    let one: TokenBatch = std::iter::once(&[0_u32][..]).collect();
    for single in Head::ALL.map(|head| Outputs::of(&[head])) {
        if available.contains(single) {
            continue;
        }
        for asked in [single, single.union(available)] {
            match backend.embed(&one, asked) {
                Err(BackendError::UnsupportedOutput { .. }) => {}
                other => {
                    return Err(format!(
                        "asking for {asked} of a model of {available} gives {:?}",
                        other.map(|_| "rows")
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Checks that batches that break the contract are refused.
pub(super) fn refused_batches(backend: &mut dyn Backend) -> Result<(), String> {
    let info = backend.info().clone();
    let beyond = |size: usize| u32::try_from(size).map_err(|e| e.to_string());
    let unknown = [beyond(info.vocabulary_size)?];
    let too_long = vec![0; info.max_sequence_tokens + 1];
    let ids = |sequences: &[&[u32]]| sequences.iter().copied().collect::<TokenBatch>();
    let mut other_segment = TokenBatch::new();
    other_segment.push_pair(&[0], &[beyond(info.type_vocabulary_size)?]);
    let cases = [
        ("an empty batch", TokenBatch::new()),
        ("an empty sequence", ids(&[&[0], &[]])),
        ("an id beyond the vocabulary", ids(&[&[0], &unknown])),
        ("a sequence beyond the longest", ids(&[&too_long])),
        ("a segment beyond the model's", other_segment),
    ];
    for (what, batch) in cases {
        match backend.embed(&batch, info.outputs) {
            Err(BackendError::InvalidBatch(_)) => {}
            other => {
                return Err(format!(
                    "{what} gives {:?}, expected InvalidBatch",
                    other.map(|_| "rows")
                ));
            }
        }
    }
    Ok(())
}
