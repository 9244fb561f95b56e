//! Recognizes weights in formats that no backend reads.

use std::{fs, path::Path};

/// Endings of files, and what a folder with such a file needs.
const FORMATS: [(&str, &str); 6] = [
    (
        ".gguf",
        "it holds GGUF, the format of llama.cpp, which is not read: fetch the model that it was made of, with model.safetensors",
    ),
    (".onnx", "it holds an ONNX model: type = \"onnx\" runs it"),
    (
        ".h5",
        "it holds weights of TensorFlow, which are not read: save the model anew with transformers, as model.safetensors",
    ),
    (
        ".msgpack",
        "it holds weights of Flax, which are not read: save the model anew with transformers, as model.safetensors",
    ),
    (
        ".npz",
        "it holds weights of MLX, which are not read: fetch the model that it was made of, with model.safetensors",
    ),
    (
        ".mlmodel",
        "it holds weights of Core ML, which are not read: fetch the model that it was made of, with model.safetensors",
    ),
];

/// Says what a folder without weights that are read holds instead, and what would be right; none where that is not known.
#[must_use]
pub fn other_format(folder: &Path) -> Option<&'static str> {
    let names = [folder.to_owned(), folder.join("onnx")].into_iter();
    let names = names.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let names: Vec<String> = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let mut formats = FORMATS.iter();
    let found = formats.find(|(ending, _)| names.iter().any(|name| name.ends_with(ending)));
    found.map(|(_, problem)| *problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_says_what_it_holds_instead_of_weights() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(other_format(folder.path()), None);
        fs::create_dir(folder.path().join("onnx")).unwrap();
        fs::write(folder.path().join("onnx/model.onnx"), "").unwrap();
        assert!(
            other_format(folder.path())
                .unwrap()
                .contains("type = \"onnx\"")
        );
        fs::write(folder.path().join("model-Q4_K_M.gguf"), "").unwrap();
        assert!(other_format(folder.path()).unwrap().contains("llama.cpp"));
    }
}
