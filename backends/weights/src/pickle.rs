//! The pickle of a PyTorch checkpoint: the names, shapes and storages of its tensors.
//!
//! It runs no code: a pickle's calls are looked up among the few that `torch.save` writes, all others make an opaque
//! value. Values lie in one list and name each other by their place there, so that neither nesting nor sharing costs more
//! than the bytes that say it.
//!
//! Source: `pickletools` of Python 3.11 for the operations, `torch/_utils.py` and `torch/serialization.py` of PyTorch 2.5
//! for the calls.
mod input;
mod machine;
pub(crate) mod tensor;

use std::collections::BTreeMap;

use self::{
    input::Input,
    machine::{Machine, Value},
    tensor::TensorInfo,
};

/// Reads the tensors of a state dict by name; those of other number formats, such as integer buffers, are left out.
///
/// # Errors
/// The operation that cannot be read, and its place.
pub(crate) fn tensors(pickle: &[u8]) -> Result<BTreeMap<String, TensorInfo>, String> {
    let (machine, root) = run(&mut Input { bytes: pickle })?;
    named(&machine, root)
}

/// The facts in the five pickles of an old checkpoint, which stand in front of its storages.
pub(crate) struct Old {
    /// As [`tensors`] gives them.
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
    /// The names of storages in the order in which they follow, each with the bytes of one of its numbers.
    pub(crate) storages: Vec<(String, usize)>,
    /// Bytes of the pickles.
    pub(crate) length: usize,
}

/// Reads the pickles at the beginning of an old checkpoint: a number by which it is known, a version, facts of the machine, the
/// state dict, and the names of the storages that follow.
///
/// Source: PyTorch 2.5, `torch/serialization.py`, `_legacy_save`.
///
/// # Errors
/// As [`tensors`].
pub(crate) fn old(bytes: &[u8]) -> Result<Old, String> {
    let mut input = Input { bytes };
    for _ in 0..3 {
        run(&mut input)?;
    }
    let (machine, root) = run(&mut input)?;
    let tensors = named(&machine, root)?;
    let (names, root) = run(&mut input)?;
    let Value::Sequence(places) = &names.values[root] else {
        return Err("it does not list its storages".into());
    };
    let storage = |place: &usize| match &names.values[*place] {
        Value::Text(name) => match machine.storages.get(name) {
            Some(bytes) => Ok((name.clone(), *bytes)),
            None => Err(format!("storage {name} is of a class that is not known")),
        },
        other => Err(format!("{other:?} is no name of a storage")),
    };
    Ok(Old {
        tensors,
        storages: places.iter().map(storage).collect::<Result<_, _>>()?,
        length: bytes.len() - input.bytes.len(),
    })
}

/// Runs one pickle to its end; returns the place of its value.
fn run(input: &mut Input<'_>) -> Result<(Machine, usize), String> {
    let mut machine = Machine::default();
    let length = input.bytes.len();
    loop {
        let at = length - input.bytes.len();
        let done = machine.step(input);
        let done = done.map_err(|problem| format!("{problem} at byte {at} of its pickle"))?;
        if let Some(root) = done {
            return Ok((machine, root));
        }
    }
}

fn named(machine: &Machine, root: usize) -> Result<BTreeMap<String, TensorInfo>, String> {
    let Value::Dict(entries) = &machine.values[root] else {
        return Err("its pickle holds no dictionary of tensors".into());
    };
    let named = entries.iter().filter_map(|(key, value)| {
        match (&machine.values[*key], &machine.values[*value]) {
            (Value::Text(name), Value::Tensor(info)) => Some((name.clone(), info.clone())),
            _ => None,
        }
    });
    Ok(named.collect())
}

#[cfg(test)]
mod tests {
    use super::tensor::tests::info;
    use super::*;

    /// `{"w": torch.zeros(2, 3)}` as `torch.save` of PyTorch 2.5 writes it, less its memo.
    fn saved() -> Vec<u8> {
        let mut pickle = b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n".to_vec();
        pickle.extend(
            b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQ",
        );
        pickle.extend(b"K\0K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtRs.");
        pickle
    }

    #[test]
    fn a_saved_tensor_is_described() {
        let found = tensors(&saved()).unwrap();
        assert_eq!(
            found,
            BTreeMap::from([("w".into(), info(&[2, 3], &[3, 1]))])
        );
    }

    #[test]
    fn whatever_is_cut_off_or_changed_is_an_error_or_another_description() {
        let whole = saved();
        for end in 0..whole.len() {
            assert!(tensors(&whole[..end]).is_err(), "{end}");
        }
        for i in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[i] ^= 1 << bit;
                // No panic; what it says is judged by who reads the tensors.
                drop(tensors(&changed));
            }
        }
    }

    #[test]
    fn a_million_values_within_each_other_need_no_stack() {
        let mut pickle = b"]".repeat(1 << 20);
        pickle.extend(b"a".repeat((1 << 20) - 1));
        pickle.push(b'.');
        assert_eq!(
            tensors(&pickle).unwrap_err(),
            "its pickle holds no dictionary of tensors"
        );
    }

    #[test]
    fn nothing_is_called() {
        let error = tensors(b"cos\nsystem\nX\x02\0\0\0ls\x85R.").unwrap_err();
        assert_eq!(error, "its pickle holds no dictionary of tensors");
    }
}
