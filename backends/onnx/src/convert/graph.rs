//! Collects the nodes of a graph, its inputs and its outputs.

use super::{ConvertError, Variant, attributes::int, tensors::Tensors};
use crate::proto::{
    Attribute, Dimension, Extent, Graph, Node, Shape, TensorType, Type, ValueInfo, attribute,
    element,
};

/// The domain of ONNX Runtime's own operators.
pub(super) const CONTRIBUTED: &str = "com.microsoft";

/// A graph in the making. Values go by name; each node makes one value and names it.
pub(super) struct Builder<'a, 'r> {
    pub(super) tensors: Tensors<'a, 'r>,
    pub(super) variant: Variant,
    graph: Graph,
    /// Nodes so far, those of subgraphs included: it makes names unique.
    n_nodes: usize,
}

impl<'a, 'r> Builder<'a, 'r> {
    /// An empty graph of a variant.
    pub(super) fn new(tensors: Tensors<'a, 'r>, variant: Variant) -> Self {
        let graph = Graph {
            name: "encoder".into(),
            ..Graph::default()
        };
        Self {
            tensors,
            variant,
            graph,
            n_nodes: 0,
        }
    }

    /// Ends the graph with its constants.
    pub(super) fn finish(self) -> Result<Graph, ConvertError> {
        Ok(Graph {
            initializer: self.tensors.finish()?,
            ..self.graph
        })
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

    /// Adds a node that cuts an axis into equal parts; none where there is one part.
    pub(super) fn split(&mut self, input: &str, axis: i64, n: usize) -> Vec<String> {
        if n == 1 {
            return vec![input.into()];
        }
        let name = self.node("Split", &[input], vec![int("axis", axis)]);
        self.several(&name, n)
    }

    /// Lets the last node, whose only value was `name`, make several.
    pub(super) fn several(&mut self, name: &str, n: usize) -> Vec<String> {
        let values: Vec<String> = (0..n).map(|i| format!("{name}_{i}")).collect();
        if let Some(node) = self.graph.node.last_mut() {
            node.output.clone_from(&values);
        }
        values
    }

    /// Adds a node that turns numbers into the format of the model's numbers.
    pub(super) fn cast_to_numbers(&mut self, x: &str) -> String {
        let element = self.tensors.element();
        self.node("Cast", &[x], vec![int("to", element.into())])
    }
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
