//! Checks an ONNX file's references to other files before ONNX Runtime sees it.
//!
//! A model names the files of its large tensors. A model from a stranger could name any file of this machine, so only
//! plain files within the model's own folder are let through, and only ranges that lie within them.

mod schema;

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use prost::Message;

use self::schema::{Attribute, Function, Graph, Model, Node, SparseTensor, Tensor};
use crate::proto::{EXTERNAL, Entry};

/// The format's own limit.
const MAX_FILE: u64 = 2 << 30;

/// The properties that a model file states, when all of its references are in order.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The precision that it states, if it was written here.
    pub(crate) precision: Option<String>,
    /// The files that it refers to.
    pub(crate) files: Vec<PathBuf>,
}

/// Reads the model file and checks every reference in it.
///
/// # Errors
/// A sentence that names the file, the tensor and what is wrong.
pub(crate) fn check(model: &Path) -> Result<Checked, String> {
    let shown = model.display();
    let length = model.metadata().map_err(|e| format!("{shown}: {e}"))?.len();
    if length > MAX_FILE {
        return Err(format!(
            "{shown} has {length} bytes, an ONNX model has at most {MAX_FILE}"
        ));
    }
    let bytes = std::fs::read(model).map_err(|e| format!("{shown}: {e}"))?;
    let parsed = Model::decode(bytes.as_slice())
        .map_err(|e| format!("{shown} is not an ONNX model: {e}"))?;
    drop(bytes);
    let Some(graph) = &parsed.graph else {
        return Err(format!("{shown} is not an ONNX model: it has no graph"));
    };
    let folder = model
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let folder = folder
        .canonicalize()
        .map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut checker = Checker {
        folder,
        lengths: BTreeMap::new(),
    };
    let checked = checker.graph(graph).and_then(|()| {
        parsed
            .functions
            .iter()
            .try_for_each(|f| checker.function(f))
    });
    checked.map_err(|problem| format!("{shown}: {problem}"))?;
    let names = checker.lengths.keys();
    Ok(Checked {
        precision: parsed.precision(),
        files: names.map(|name| checker.folder.join(name)).collect(),
    })
}

struct Checker {
    folder: PathBuf,
    /// Lengths in bytes of the files seen so far, by the name that the model uses.
    lengths: BTreeMap<String, u64>,
}

impl Checker {
    fn graph(&mut self, graph: &Graph) -> Result<(), String> {
        graph
            .initializer
            .iter()
            .try_for_each(|tensor| self.tensor(tensor))?;
        graph
            .sparse_initializer
            .iter()
            .try_for_each(|sparse| self.sparse(sparse))?;
        graph.node.iter().try_for_each(|node| self.node(node))
    }

    fn function(&mut self, function: &Function) -> Result<(), String> {
        function
            .attribute_proto
            .iter()
            .try_for_each(|attribute| self.attribute(attribute))?;
        function.node.iter().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &Node) -> Result<(), String> {
        node.attribute
            .iter()
            .try_for_each(|attribute| self.attribute(attribute))
    }

    fn attribute(&mut self, attribute: &Attribute) -> Result<(), String> {
        attribute
            .t
            .iter()
            .chain(&attribute.tensors)
            .try_for_each(|tensor| self.tensor(tensor))?;
        attribute
            .g
            .iter()
            .chain(&attribute.graphs)
            .try_for_each(|graph| self.graph(graph))?;
        attribute
            .sparse_tensor
            .iter()
            .chain(&attribute.sparse_tensors)
            .try_for_each(|sparse| self.sparse(sparse))
    }

    fn sparse(&mut self, sparse: &SparseTensor) -> Result<(), String> {
        sparse
            .values
            .iter()
            .chain(&sparse.indices)
            .try_for_each(|tensor| self.tensor(tensor))
    }

    fn tensor(&mut self, tensor: &Tensor) -> Result<(), String> {
        if tensor.data_location != EXTERNAL && tensor.external_data.is_empty() {
            return Ok(());
        }
        let entry = |key: &str| find(&tensor.external_data, key);
        for key in ["location", "offset", "length"] {
            if tensor
                .external_data
                .iter()
                .filter(|entry| entry.key == key)
                .count()
                > 1
            {
                return Err(format!("tensor \"{}\" names its {key} twice", tensor.name));
            }
        }
        let location = entry("location")
            .ok_or_else(|| format!("tensor \"{}\" names no location", tensor.name))?;
        let file_length = self.file_length(location, &tensor.name)?;
        let name = &tensor.name;
        let number = |what: &str, text: &str| {
            text.parse::<u64>()
                .map_err(|_| format!("tensor \"{name}\" has the {what} \"{text}\""))
        };
        let within = |offset: u64, length: u64| {
            let end = offset.checked_add(length);
            if end.is_none_or(|end| end > file_length) {
                return Err(format!(
                    "tensor \"{name}\" ends beyond {location}, which has {file_length} bytes: the file is cut off"
                ));
            }
            Ok(())
        };
        let of = |key: &str| number(key, entry(key).unwrap_or("0"));
        within(of("offset")?, of("length")?)?;
        // Weights packed for a processor, as ONNX Runtime writes them: a name, and each one's offset, length and checksum.
        let packed = tensor
            .external_data
            .iter()
            .filter(|entry| entry.key.starts_with("prepacked"));
        for part in packed.flat_map(|entry| entry.value.split('|').skip(1)) {
            let mut numbers = part.split(';');
            let mut next = |what| number(what, numbers.next().unwrap_or_default());
            within(next("packed offset")?, next("packed length")?)?;
        }
        Ok(())
    }

    /// Length of an external file, after checking that it is one of the model's own.
    fn file_length(&mut self, location: &str, tensor: &str) -> Result<u64, String> {
        if let Some(length) = self.lengths.get(location) {
            return Ok(*length);
        }
        let refuse =
            |why: &str| format!("tensor \"{tensor}\" has its data in \"{location}\", which {why}");
        let relative = Path::new(location);
        let plain = relative
            .components()
            .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        // The marker makes ONNX Runtime read memory at the offset.
        let odd = location.contains('\\') || location.contains("_ORT_MEM_ADDR_");
        if !plain || odd || relative.components().next().is_none() {
            return Err(refuse("is not a plain path within the model's folder"));
        }
        let path = self.folder.join(relative);
        let real = path
            .canonicalize()
            .map_err(|e| refuse(&format!("cannot be opened: {e}")))?;
        if !real.starts_with(&self.folder) {
            return Err(refuse(
                "is a link out of the model's folder: copy the file there",
            ));
        }
        let metadata = real
            .metadata()
            .map_err(|e| refuse(&format!("cannot be opened: {e}")))?;
        if !metadata.is_file() {
            return Err(refuse("is not a file"));
        }
        self.lengths.insert(location.to_owned(), metadata.len());
        Ok(metadata.len())
    }
}

fn find<'a>(entries: &'a [Entry], key: &str) -> Option<&'a str> {
    entries
        .iter()
        .find(|entry| entry.key == key)
        .map(|entry| entry.value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(location: &str, offset: &str, length: &str) -> Vec<Entry> {
        [
            ("location", location),
            ("offset", offset),
            ("length", length),
        ]
        .map(|(key, value)| Entry {
            key: key.into(),
            value: value.into(),
        })
        .to_vec()
    }

    fn external(location: &str, offset: &str, length: &str) -> Tensor {
        let external_data = entries(location, offset, length);
        Tensor {
            name: "w".into(),
            data_location: EXTERNAL,
            external_data,
        }
    }

    /// A folder with `model.onnx` holding the tensor, 100 bytes of `data`, and a link out of it.
    fn folder(model: &Model) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.onnx"), model.encode_to_vec()).unwrap();
        std::fs::write(folder.path().join("data"), [0; 100]).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join("link")).unwrap();
        folder
    }

    fn checked(graph: Graph) -> Result<(), String> {
        checked_model(&Model {
            graph: Some(graph),
            ..Model::default()
        })
    }

    fn checked_model(model: &Model) -> Result<(), String> {
        let folder = folder(model);
        check(&folder.path().join("model.onnx")).map(|_| ())
    }

    #[test]
    fn a_file_of_the_folder_passes_and_everything_else_is_refused() {
        let initializer = |tensor| Graph {
            initializer: vec![tensor],
            ..Graph::default()
        };
        assert_eq!(checked(initializer(external("data", "50", "50"))), Ok(()));
        assert_eq!(checked(initializer(external("./data", "0", "100"))), Ok(()));
        let refused = [
            (external("/etc/passwd", "0", "1"), "not a plain path"),
            (external("../data", "0", "1"), "not a plain path"),
            (external("a/../../data", "0", "1"), "not a plain path"),
            (external("..\\data", "0", "1"), "not a plain path"),
            (external("", "0", "1"), "not a plain path"),
            (external("link", "0", "1"), "link out of the model's folder"),
            (external("missing", "0", "1"), "cannot be opened"),
            (external(".", "0", "1"), "is not a file"),
            (external("*/_ORT_MEM_ADDR_/*", "0", "1"), "not a plain path"),
            (external("data", "51", "50"), "cut off"),
            (external("data", "18446744073709551615", "50"), "cut off"),
            (external("data", "-1", "50"), "offset \"-1\""),
        ];
        for (tensor, expected) in refused {
            let error = checked(initializer(tensor)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn packed_weights_lie_within_the_file() {
        let checked_packed = |packed: &str| {
            let mut tensor = external("data", "0", "10");
            tensor.external_data.push(Entry {
                key: "prepacked".into(),
                value: packed.into(),
            });
            let initializer = vec![tensor];
            checked(Graph {
                initializer,
                ..Graph::default()
            })
        };
        assert_eq!(checked_packed("MatMul+17|10;40;0|50;50;0"), Ok(()));
        for (packed, expected) in [
            ("MatMul+17|10;40;0|51;50;0", "cut off"),
            ("MatMul+17|18446744073709551615;50;0", "cut off"),
            ("MatMul+17|10", "packed length \"\""),
            ("MatMul+17|x;1;0", "packed offset \"x\""),
        ] {
            let error = checked_packed(packed).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_key_said_twice_is_refused() {
        let mut tensor = external("data", "0", "1");
        tensor
            .external_data
            .extend(entries("/etc/passwd", "0", "1"));
        let error = checked(Graph {
            initializer: vec![tensor],
            ..Graph::default()
        })
        .unwrap_err();
        assert!(error.contains("location twice"), "{error}");
    }

    #[test]
    fn tensors_are_found_wherever_they_hide() {
        let bad = external("/etc/passwd", "0", "1");
        let sparse = SparseTensor {
            values: None,
            indices: Some(bad.clone()),
        };
        let inner = Graph {
            initializer: vec![bad.clone()],
            ..Graph::default()
        };
        let attributes = [
            Attribute {
                t: Some(bad.clone()),
                ..Attribute::default()
            },
            Attribute {
                tensors: vec![bad],
                ..Attribute::default()
            },
            Attribute {
                g: Some(inner.clone()),
                ..Attribute::default()
            },
            Attribute {
                graphs: vec![inner],
                ..Attribute::default()
            },
            Attribute {
                sparse_tensor: Some(sparse.clone()),
                ..Attribute::default()
            },
            Attribute {
                sparse_tensors: vec![sparse.clone()],
                ..Attribute::default()
            },
        ];
        for attribute in attributes {
            let node = Node {
                attribute: vec![attribute],
            };
            let error = checked(Graph {
                node: vec![node],
                ..Graph::default()
            })
            .unwrap_err();
            assert!(error.contains("/etc/passwd"), "{error}");
        }
        let attribute_proto = vec![Attribute {
            t: Some(external("/etc/passwd", "0", "1")),
            ..Attribute::default()
        }];
        let functions = vec![Function {
            attribute_proto,
            ..Function::default()
        }];
        let error = checked_model(&Model {
            graph: Some(Graph::default()),
            functions,
            ..Model::default()
        })
        .unwrap_err();
        assert!(error.contains("/etc/passwd"), "{error}");
        let error = checked(Graph {
            sparse_initializer: vec![sparse],
            ..Graph::default()
        })
        .unwrap_err();
        assert!(error.contains("/etc/passwd"), "{error}");
    }

    #[test]
    fn what_is_no_model_is_said_to_be_none() {
        let folder = tempfile::tempdir().unwrap();
        for bytes in [&b"not protobuf at all"[..], b""] {
            let model = folder.path().join("model.onnx");
            std::fs::write(&model, bytes).unwrap();
            assert!(check(&model).unwrap_err().contains("is not an ONNX model"));
        }
    }
}
