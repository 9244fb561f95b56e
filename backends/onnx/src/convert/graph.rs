//! Collects the nodes and tensors of a graph; large tensors go straight to the data file.

use std::{io, path::Path};

use super::{ConvertError, DATA_FILE, ReadTensor, data::DataFile};
use crate::proto::{
    Attribute, Dimension, EXTERNAL, Entry, Extent, Graph, Node, Shape, Tensor, TensorType, Type,
    ValueInfo, attribute, element,
};

/// Tensors up to this many numbers stay in the model file, where ONNX Runtime's fusions can read them; the rest lie in
/// the data file, where they can be mapped.
const INLINE: usize = 4096;
/// The domain of ONNX Runtime's own operators.
pub(super) const CONTRIBUTED: &str = "com.microsoft";

/// How a weight's numbers lie in the graph, compared with how PyTorch stores them.
#[derive(Clone, Copy)]
pub(super) enum Store {
    AsIs,
    /// `(outputs, inputs)` becomes `(inputs, outputs)`, which is what `MatMul` takes.
    Transposed,
}

/// A graph in the making. Values go by name; each node makes one value and names it.
pub(super) struct Builder<'a, 'r> {
    graph: Graph,
    data: DataFile,
    read: &'a mut ReadTensor<'r>,
    /// Nodes so far, those of subgraphs included: it makes names unique.
    n_nodes: usize,
}

impl<'a, 'r> Builder<'a, 'r> {
    pub(super) fn new(data: DataFile, read: &'a mut ReadTensor<'r>) -> Self {
        let graph = Graph {
            name: "encoder".into(),
            ..Graph::default()
        };
        Self {
            graph,
            data,
            read,
            n_nodes: 0,
        }
    }

    pub(super) fn finish(self) -> Result<Graph, ConvertError> {
        self.data.finish()?;
        Ok(self.graph)
    }

    /// Declares an input of shape `(batch, length)` and int64.
    pub(super) fn input(&mut self, name: &str) -> String {
        self.graph
            .input
            .push(value_info(name, element::INT64, vec![batch(), length()]));
        name.into()
    }

    /// Declares an output of shape `(batch, length, width)` and f32.
    pub(super) fn token_output(&mut self, name: &str, width: usize) {
        self.output(name, token_vectors(width));
    }

    /// Declares an output of shape `(batch, width)` and f32.
    pub(super) fn sequence_output(&mut self, name: &str, width: usize) {
        self.output(name, vec![batch(), Extent::Value(width as i64)]);
    }

    fn output(&mut self, name: &str, extents: Vec<Extent>) {
        self.graph
            .output
            .push(value_info(name, element::FLOAT, extents));
    }

    /// Adds a node that makes the value `name`.
    pub(super) fn named(
        &mut self,
        name: &str,
        op: &str,
        inputs: &[&str],
        attributes: Vec<Attribute>,
    ) -> String {
        self.n_nodes += 1;
        self.graph.node.push(Node {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![name.into()],
            name: name.into(),
            op_type: op.into(),
            attribute: attributes,
            domain: String::new(),
        });
        name.into()
    }

    /// Adds a node whose value gets a name of its own.
    pub(super) fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<Attribute>) -> String {
        let name = format!("{}_{}", op.to_lowercase(), self.n_nodes);
        self.named(&name, op, inputs, attributes)
    }

    /// Adds a node of ONNX Runtime's own operators.
    pub(super) fn contributed(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: Vec<Attribute>,
    ) -> String {
        let name = self.node(op, inputs, attributes);
        if let Some(node) = self.graph.node.last_mut() {
            node.domain = CONTRIBUTED.into();
        }
        name
    }

    /// Adds a choice between two ways to make a value of shape `(batch, length, width)`.
    pub(super) fn either(
        &mut self,
        condition: &str,
        width: usize,
        then: impl FnOnce(&mut Self) -> String,
        otherwise: impl FnOnce(&mut Self) -> String,
    ) -> String {
        let branches = [
            ("then_branch", self.branch(width, then)),
            ("else_branch", self.branch(width, otherwise)),
        ];
        let attributes = branches.map(|(name, graph)| Attribute {
            name: name.into(),
            g: Some(graph),
            kind: attribute::GRAPH,
            ..Attribute::default()
        });
        self.node("If", &[condition], attributes.into())
    }

    /// The nodes that `make` adds, as a graph of their own, which sees the values around it.
    fn branch(&mut self, width: usize, make: impl FnOnce(&mut Self) -> String) -> Graph {
        let around = std::mem::take(&mut self.graph.node);
        let value = make(self);
        let node = std::mem::replace(&mut self.graph.node, around);
        let output = vec![value_info(&value, element::FLOAT, token_vectors(width))];
        Graph {
            name: format!("branch_{}", self.n_nodes),
            node,
            output,
            ..Graph::default()
        }
    }

    /// Adds a node that cuts the last axis into equal parts.
    pub(super) fn split<const N: usize>(&mut self, input: &str) -> [String; N] {
        let at = self.n_nodes;
        let parts: [String; N] = std::array::from_fn(|i| format!("split_{at}_{i}"));
        self.named(
            &format!("split_{at}"),
            "Split",
            &[input],
            vec![int("axis", -1)],
        );
        if let Some(node) = self.graph.node.last_mut() {
            node.output = parts.to_vec();
        }
        parts
    }

    /// Adds a small constant of integers.
    pub(super) fn ints(&mut self, name: &str, values: &[i64], dims: &[usize]) -> String {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(name, element::INT64, dims, raw)
    }

    /// Whether a tensor of this name is there already.
    pub(super) fn has_initializer(&self, name: &str) -> bool {
        self.graph
            .initializer
            .iter()
            .any(|tensor| tensor.name == name)
    }

    /// Adds a constant of one number.
    pub(super) fn float(&mut self, name: &str, value: f32) -> String {
        self.initializer(name, element::FLOAT, &[], value.to_le_bytes().into())
    }

    /// Adds one of the model's tensors under its own name.
    pub(super) fn weight(
        &mut self,
        name: &str,
        shape: &[usize],
        store: Store,
    ) -> Result<String, ConvertError> {
        let (path, data, graph) = (self.data.path.clone(), &mut self.data, &mut self.graph);
        (self.read)(name, shape, &mut |values| match (store, shape) {
            (Store::Transposed, &[outputs, inputs]) => {
                let turned = transposed(values, outputs, inputs);
                add_floats(graph, data, name, &[inputs, outputs], &turned)
            }
            _ => add_floats(graph, data, name, shape, values),
        })
        .map_err(|e| at_path(e, &path))?;
        Ok(name.into())
    }

    /// Adds a tensor that was computed from the model's.
    pub(super) fn floats(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &[f32],
    ) -> Result<String, ConvertError> {
        let added = add_floats(&mut self.graph, &mut self.data, name, shape, values);
        added.map_err(|source| ConvertError::Write {
            path: self.data.path.clone(),
            source,
        })?;
        Ok(name.into())
    }

    /// Reads one of the model's tensors.
    pub(super) fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ConvertError> {
        let mut copy = Vec::new();
        (self.read)(name, shape, &mut |values| {
            copy.extend_from_slice(values);
            Ok(())
        })?;
        Ok(copy)
    }

    fn initializer(
        &mut self,
        name: &str,
        data_type: i32,
        dims: &[usize],
        raw_data: Vec<u8>,
    ) -> String {
        self.graph.initializer.push(Tensor {
            dims: dims.iter().map(|dim| *dim as i64).collect(),
            data_type,
            name: name.into(),
            raw_data,
            ..Tensor::default()
        });
        name.into()
    }
}

/// An error of writing knows its file only here.
fn at_path(error: ConvertError, path: &Path) -> ConvertError {
    match error {
        ConvertError::Write { source, .. } => ConvertError::Write {
            path: path.to_owned(),
            source,
        },
        other => other,
    }
}

fn add_floats(
    graph: &mut Graph,
    data: &mut DataFile,
    name: &str,
    dims: &[usize],
    values: &[f32],
) -> io::Result<()> {
    let mut tensor = Tensor {
        dims: dims.iter().map(|dim| *dim as i64).collect(),
        data_type: element::FLOAT,
        name: name.into(),
        ..Tensor::default()
    };
    if values.len() <= INLINE {
        tensor.raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    } else {
        let offset = data.append(values)?;
        tensor.data_location = EXTERNAL;
        let entries = [
            ("location", DATA_FILE.to_owned()),
            ("offset", offset.to_string()),
            ("length", (4 * values.len()).to_string()),
        ];
        tensor.external_data = entries
            .map(|(key, value)| Entry {
                key: key.into(),
                value,
            })
            .into();
    }
    graph.initializer.push(tensor);
    Ok(())
}

/// Turns `(rows, columns)` into `(columns, rows)`, in blocks that stay in the cache.
pub(super) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const BLOCK: usize = 32;
    let mut turned = vec![0.0; values.len()];
    for row_block in (0..rows).step_by(BLOCK) {
        for column_block in (0..columns).step_by(BLOCK) {
            for row in row_block..(row_block + BLOCK).min(rows) {
                for column in column_block..(column_block + BLOCK).min(columns) {
                    turned[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    turned
}

fn token_vectors(width: usize) -> Vec<Extent> {
    vec![batch(), length(), Extent::Value(width as i64)]
}

fn batch() -> Extent {
    Extent::Named("batch".into())
}

fn length() -> Extent {
    Extent::Named("length".into())
}

fn value_info(name: &str, element: i32, extents: Vec<Extent>) -> ValueInfo {
    let dim = extents
        .into_iter()
        .map(|extent| Dimension {
            extent: Some(extent),
        })
        .collect();
    let tensor = TensorType {
        element,
        shape: Some(Shape { dim }),
    };
    ValueInfo {
        name: name.into(),
        kind: Some(Type {
            tensor: Some(tensor),
        }),
    }
}

/// An integer attribute.
pub(super) fn int(name: &str, i: i64) -> Attribute {
    Attribute {
        name: name.into(),
        i,
        kind: attribute::INT,
        ..Attribute::default()
    }
}

/// An attribute of several integers.
pub(super) fn ints(name: &str, ints: &[i64]) -> Attribute {
    Attribute {
        name: name.into(),
        ints: ints.into(),
        kind: attribute::INTS,
        ..Attribute::default()
    }
}

/// A float attribute.
pub(super) fn float(name: &str, f: f32) -> Attribute {
    Attribute {
        name: name.into(),
        f,
        kind: attribute::FLOAT,
        ..Attribute::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transposed_matrix_has_each_number_at_its_mirror_place() {
        let (rows, columns) = (45, 70);
        let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        let turned = transposed(&values, rows, columns);
        for row in 0..rows {
            for column in 0..columns {
                assert_eq!(turned[column * rows + row], values[row * columns + column]);
            }
        }
    }
}
