//! The packed forward pass against candle-transformers' own XLM-RoBERTa, on the same weights.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::xlm_roberta::{Config, XLMRobertaModel};
use embedgate_candle::{CandleBackend, Options};
use embedgate_core::{Backend, Head, ModelFolder, Outputs, Pooling, TokenBatch};

#[test]
fn it_equals_the_stock_model() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-bge-m3");
    let ids: Vec<u32> = std::iter::once(0)
        .chain((0..200).map(|i| 5 + i * 37 % 600))
        .chain([2])
        .collect();

    let text = std::fs::read_to_string(path.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    // The stock model asks for it and does not use it.
    config["hidden_dropout_prob"] = 0.1.into();
    let config: Config = serde_json::from_value(config).unwrap();
    let weights =
        VarBuilder::from_pth(path.join("pytorch_model.bin"), DType::F32, &Device::Cpu).unwrap();
    let stock = XLMRobertaModel::new(&config, weights).unwrap();
    let input = Tensor::new(&ids[..], &Device::Cpu)
        .unwrap()
        .unsqueeze(0)
        .unwrap();
    let mask = input.ones_like().unwrap();
    let segments = input.zeros_like().unwrap();
    let hidden = stock
        .forward(&input, &mask, &segments, None, None, None)
        .unwrap();
    let mean: Vec<f32> = hidden
        .mean(1)
        .unwrap()
        .squeeze(0)
        .unwrap()
        .to_vec1()
        .unwrap();

    let folder = ModelFolder::open(&path).unwrap();
    let options = Options::on_processor(Pooling::MEAN, 512, 2);
    let mut backend = CandleBackend::load(&folder, options).unwrap();
    let batch: TokenBatch = std::iter::once(ids.as_slice()).collect();
    let ours = backend
        .embed(&batch, Outputs::DENSE)
        .unwrap()
        .vectors(Head::Dense)
        .unwrap()
        .clone();
    let far = mean
        .iter()
        .zip(ours.row(0))
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(far < 2e-6, "differs by {far}");
}
