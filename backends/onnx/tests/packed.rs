//! The model without padding, whose three operators CUDA alone has: with the same operators written out for the processor.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::{fs, io, path::Path};

use embedgate_core::{Head, ModelFolder, Outputs, Precision};
use embedgate_onnx::convert::{self, ConvertError, Files, Parts, Target, Variant};
use embedgate_weights::Weights;
use ort::{
    Error, Result,
    environment::Environment,
    operator::{
        BoxedKernel, ComputeContext, KernelContext, Operator, OperatorDomain, OperatorInput,
        OperatorOutput,
    },
    session::{Session, SessionInputValue},
    value::{Tensor, TensorElementType},
};

/// The domain of the written operators, and one of the same length, in which the processor's are registered.
const DOMAINS: [&[u8; 13]; 2] = [b"com.microsoft", b"org.embedgate"];
const F32: TensorElementType = TensorElementType::Float32;
const I32: TensorElementType = TensorElementType::Int32;
const LENGTHS: [usize; 3] = [9, 4, 7];

fn floats(context: &ComputeContext, i: usize) -> Result<(Vec<usize>, Vec<f32>)> {
    let value = context
        .input(i)?
        .ok_or_else(|| Error::new("missing input"))?;
    let (shape, numbers) = value.try_extract_tensor::<f32>()?;
    Ok((
        shape.iter().map(|n| usize::try_from(*n).unwrap()).collect(),
        numbers.to_vec(),
    ))
}

fn integers(context: &ComputeContext, i: usize) -> Result<(Vec<usize>, Vec<usize>)> {
    let value = context
        .input(i)?
        .ok_or_else(|| Error::new("missing input"))?;
    let (shape, numbers) = value.try_extract_tensor::<i32>()?;
    let positive = |n: &i32| usize::try_from(*n).unwrap();
    let shape = shape.iter().map(|n| usize::try_from(*n).unwrap()).collect();
    Ok((shape, numbers.iter().map(positive).collect()))
}

fn give<T: ort::value::PrimitiveTensorElementType + Copy + std::fmt::Debug>(
    context: &ComputeContext,
    i: usize,
    shape: &[usize],
    numbers: &[T],
) -> Result<()> {
    let shape: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
    let mut value = context
        .output(i, shape)?
        .ok_or_else(|| Error::new("missing output"))?;
    value
        .try_extract_tensor_mut::<T>()?
        .1
        .copy_from_slice(numbers);
    Ok(())
}

fn to_i32(numbers: impl IntoIterator<Item = usize>) -> Vec<i32> {
    numbers
        .into_iter()
        .map(|n| i32::try_from(n).unwrap())
        .collect()
}

/// `(batch, length, width)` and the length of each to rows, where each is from, where sequences begin, and the longest.
struct RemovePadding;

impl Operator for RemovePadding {
    type Kernel<'attr> = BoxedKernel<'attr>;

    fn name(&self) -> &str {
        "RemovePadding"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(F32), OperatorInput::required(I32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [F32, I32, I32, I32].map(OperatorOutput::required)
    }

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> Result<Self::Kernel<'attr>> {
        Ok(Box::new(|context: &ComputeContext| {
            let (shape, rows) = floats(context, 0)?;
            let (_, lengths) = integers(context, 1)?;
            let (length, width) = (shape[1], shape[2]);
            let places = |is_token: bool| {
                let of = |(i, n): (usize, &usize)| match is_token {
                    true => i * length..i * length + n,
                    false => i * length + n..(i + 1) * length,
                };
                lengths.iter().enumerate().flat_map(of).collect::<Vec<_>>()
            };
            let tokens = places(true);
            let kept: Vec<f32> = tokens
                .iter()
                .flat_map(|at| rows[at * width..][..width].to_vec())
                .collect();
            give(context, 0, &[tokens.len(), width], &kept)?;
            let offsets = to_i32(tokens.iter().copied().chain(places(false)));
            give(context, 1, &[lengths.len(), length], &offsets)?;
            let mut starts = vec![0];
            for n in &lengths {
                starts.push(starts.last().unwrap() + n);
            }
            give(context, 2, &[starts.len()], &to_i32(starts.iter().copied()))?;
            give(context, 3, &[1], &to_i32(lengths.iter().copied().max()))
        }))
    }
}

/// The rows back to `(batch, length, width)`, with zeros for padding.
struct RestorePadding;

impl Operator for RestorePadding {
    type Kernel<'attr> = BoxedKernel<'attr>;

    fn name(&self) -> &str {
        "RestorePadding"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(F32), OperatorInput::required(I32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(F32)]
    }

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> Result<Self::Kernel<'attr>> {
        Ok(Box::new(|context: &ComputeContext| {
            let (shape, rows) = floats(context, 0)?;
            let (places, offsets) = integers(context, 1)?;
            let width = shape[1];
            let mut restored = vec![0.0; places[0] * places[1] * width];
            for (row, at) in rows.chunks(width).zip(&offsets) {
                restored[at * width..][..width].copy_from_slice(row);
            }
            give(context, 0, &[places[0], places[1], width], &restored)
        }))
    }
}

/// Softmax of scaled products within each sequence of the rows.
struct PackedMultiHeadAttention;

impl Operator for PackedMultiHeadAttention {
    type Kernel<'attr> = BoxedKernel<'attr>;

    fn name(&self) -> &str {
        "PackedMultiHeadAttention"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let required = OperatorInput::required;
        let bias = OperatorInput::optional(F32);
        [
            required(F32),
            required(F32),
            required(F32),
            bias,
            required(I32),
            required(I32),
        ]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(F32)]
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> Result<Self::Kernel<'attr>> {
        let heads: i64 = node
            .get("num_heads")
            .ok_or_else(|| Error::new("no num_heads"))?;
        let scale: f32 = node.get("scale").ok_or_else(|| Error::new("no scale"))?;
        let heads = usize::try_from(heads).unwrap();
        Ok(Box::new(move |context: &ComputeContext| {
            let (shape, query) = floats(context, 0)?;
            let (key, value) = (floats(context, 1)?.1, floats(context, 2)?.1);
            let (_, starts) = integers(context, 5)?;
            let width = shape[1];
            let size = width / heads;
            let mut attended = vec![0.0; query.len()];
            for bounds in starts.windows(2) {
                for row in bounds[0]..bounds[1] {
                    for head in 0..heads {
                        let at = |row: usize| row * width + head * size;
                        let product = |other: usize| -> f32 {
                            let (a, b) = (&query[at(row)..][..size], &key[at(other)..][..size]);
                            a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>() * scale
                        };
                        let scores: Vec<f32> = (bounds[0]..bounds[1]).map(product).collect();
                        let highest = scores.iter().copied().fold(f32::MIN, f32::max);
                        let shares: Vec<f32> = scores.iter().map(|s| (s - highest).exp()).collect();
                        let sum: f32 = shares.iter().sum();
                        for (i, share) in shares.iter().enumerate() {
                            for j in 0..size {
                                attended[at(row) + j] += share / sum * value[at(bounds[0] + i) + j];
                            }
                        }
                    }
                }
            }
            give(context, 0, &shape, &attended)
        }))
    }
}

fn write(folder: &ModelFolder, target: Target, to: &Path) -> std::path::PathBuf {
    let variant = Variant {
        target,
        precision: Precision::F32,
    };
    let weights = Weights::open(&folder.path, folder.words()).unwrap();
    let mut read =
        |name: &str, shape: &[usize], use_them: &mut dyn FnMut(&[f32]) -> io::Result<()>| {
            let values = weights.values(name, shape);
            let values = values.map_err(|e| ConvertError::Weights(Box::new(e)))?;
            use_them(&values).map_err(|e| ConvertError::Weights(e.into()))
        };
    let parts = Parts {
        encoder: &folder.encoder,
        heads: Outputs::of(&[Head::Sparse, Head::MultiVector]),
    };
    convert::write(to, variant, parts, &mut read).unwrap();
    to.join(Files::of(variant).unwrap().model)
}

/// The outputs of a session by name, for sequences of [`LENGTHS`].
fn run(mut session: Session, folder: &ModelFolder) -> Vec<(String, Vec<f32>)> {
    let longest = LENGTHS.into_iter().max().unwrap();
    let cells = || (0..LENGTHS.len()).flat_map(|i| (0..longest).map(move |at| (i, at)));
    let of = |cell: &dyn Fn(usize, usize) -> i64| -> Vec<i64> {
        cells()
            .map(|(i, at)| if at < LENGTHS[i] { cell(i, at) } else { 0 })
            .collect()
    };
    let ids = of(&|i, at| 5 + (i as i64 * 97 + at as i64 * 31) % 700);
    // What is no padding: its id would be counted as such.
    let ids: Vec<i64> = ids
        .into_iter()
        .map(|id| if id == 0 { 1 } else { id })
        .collect();
    let position = |_, at| {
        folder
            .encoder
            .position_ids(&vec![5; at + 1])
            .last()
            .unwrap()
            .into()
    };
    let names: Vec<String> = session
        .inputs()
        .iter()
        .map(|input| input.name().to_owned())
        .collect();
    let inputs = names.into_iter().map(|name| {
        let values = match &*name {
            "input_ids" => ids.clone(),
            "attention_mask" => of(&|_, _| 1),
            "position_ids" => of(&position),
            other => panic!("{other}"),
        };
        let tensor = Tensor::from_array(([LENGTHS.len(), longest], values)).unwrap();
        (name, SessionInputValue::from(tensor))
    });
    let outputs = session.run(inputs.collect::<Vec<_>>()).unwrap();
    let numbers =
        |value: &ort::value::ValueRef<'_>| value.try_extract_tensor::<f32>().unwrap().1.to_vec();
    outputs
        .iter()
        .map(|(name, value)| (name.to_owned(), numbers(&value)))
        .collect()
}

#[test]
fn the_graph_without_padding_gives_what_the_processor_s_gives() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = ModelFolder::open(&root.join("tests/fixtures/tiny-bge-m3")).unwrap();
    let library = fs::read_dir(root.join(".embedgate/lib")).unwrap();
    let library = library
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some())
        .unwrap();
    let environment: Environment = ort::init_from(library).unwrap().build().unwrap();
    let written = tempfile::tempdir().unwrap();
    let plain = write(&folder, Target::Cpu, written.path());
    let packed = write(&folder, Target::CudaPacked, written.path());
    let mut bytes = fs::read(&packed).unwrap();
    while let Some(at) = bytes.windows(13).position(|word| word == DOMAINS[0]) {
        bytes[at..at + 13].copy_from_slice(DOMAINS[1]);
    }
    fs::write(&packed, bytes).unwrap();

    let expected = Session::builder(&environment)
        .unwrap()
        .commit_from_file(plain)
        .unwrap();
    let expected = run(expected, &folder);
    let domain = OperatorDomain::new("org.embedgate").unwrap();
    let domain = domain
        .add(RemovePadding)
        .unwrap()
        .add(RestorePadding)
        .unwrap();
    let domain = domain.add(PackedMultiHeadAttention).unwrap();
    let builder = Session::builder(&environment)
        .unwrap()
        .with_operators(domain)
        .unwrap();
    let got = run({ builder }.commit_from_file(packed).unwrap(), &folder);

    let longest = LENGTHS.into_iter().max().unwrap();
    assert_eq!(got.len(), 3);
    for ((name, expected), (also, got)) in expected.iter().zip(&got) {
        assert_eq!((name, expected.len()), (also, got.len()));
        let width = got.len() / LENGTHS.len() / longest;
        for (i, length) in LENGTHS.into_iter().enumerate() {
            let of = |values: &[f32]| values[i * longest * width..][..length * width].to_vec();
            for (a, b) in of(expected).iter().zip(&of(got)) {
                assert!((a - b).abs() < 1e-5, "{name} {i}: {a} {b}");
            }
        }
    }
}
