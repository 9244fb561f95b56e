//! Drivers and cards that fail, and kernels with faults in them: each test runs itself in a process whose driver plays that.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "support/process.rs"]
mod process;
#[path = "../../cpu/tests/support/reference.rs"]
#[expect(dead_code, reason = "only its batches are needed")]
mod reference;
#[path = "support/simulator.rs"]
#[expect(dead_code, reason = "its devices are others each time")]
mod simulator;

use std::{path::Path, sync::Arc};

use embedgate_core::{Backend, BackendError, Head, ModelFolder, Outputs};
use embedgate_cuda::{CudaBackend, Device, DriverError, Format};

use crate::{
    reference::batch,
    simulator::{library, options, tiny_bge_m3},
};

/// The first device: what was done to it before is seen again.
fn open() -> Result<Arc<Device>, DriverError> {
    Device::open(Some(&library()), 0)
}

fn load(folder: &ModelFolder, format: Format) -> CudaBackend {
    CudaBackend::load(folder, &open().unwrap(), 0, options(folder, format)).unwrap()
}

fn load_error() -> String {
    let folder = tiny_bge_m3();
    let options = options(&folder, Format::F16);
    let loaded = CudaBackend::load(&folder, &open().unwrap(), 0, options);
    loaded.err().unwrap().to_string()
}

#[test]
fn a_library_that_is_not_there_is_named() {
    if process::in_one_with("a_library_that_is_not_there_is_named", "devices=1") {
        let said = Device::open(Some(Path::new("/nowhere/libcuda.so.1")), 0);
        let said = said.unwrap_err().to_string();
        assert!(
            said.starts_with("there is no NVIDIA driver: /nowhere/libcuda.so.1 cannot be loaded"),
            "{said}"
        );
        // It is no driver, and has none of its functions.
        let other = library().with_extension("d");
        assert!(matches!(
            Device::open(Some(&other), 0),
            Err(DriverError::Missing { .. })
        ));
        // One that is there is found afterwards.
        assert!(Device::open(Some(&library()), 0).is_ok());
    }
}

#[test]
fn a_driver_without_a_device_says_so() {
    if process::in_one_with("a_driver_without_a_device_says_so", "devices=0") {
        let error = open().unwrap_err();
        assert!(error.is_no_device(), "{error}");
        assert!(
            error.to_string().contains("CUDA_ERROR_NO_DEVICE"),
            "{error}"
        );
    }
}

#[test]
fn a_device_that_is_not_there_is_named() {
    if process::in_one_with("a_device_that_is_not_there_is_named", "devices=2") {
        assert!(Device::open(Some(&library()), 1).is_ok());
        let said = Device::open(Some(&library()), 2).unwrap_err().to_string();
        assert_eq!(said, "there is no device cuda:2: the driver has 2");
    }
}

#[test]
fn an_old_device_is_named_with_what_is_needed() {
    if process::in_one_with(
        "an_old_device_is_named_with_what_is_needed",
        "capability=7.5",
    ) {
        let said = open().unwrap_err().to_string();
        assert!(
            said.contains("has compute capability 7.5, needed is 8.0"),
            "{said}"
        );
    }
}

#[test]
fn an_old_driver_is_named_with_what_is_needed() {
    if process::in_one_with("an_old_driver_is_named_with_what_is_needed", "driver=11080") {
        let said = open().unwrap_err().to_string();
        assert!(
            said.contains("is for CUDA 11.8, needed is one for CUDA 12.0"),
            "{said}"
        );
    }
}

#[test]
fn a_driver_that_does_not_start_says_why() {
    if process::in_one_with("a_driver_that_does_not_start_says_why", "init=999") {
        let said = open().unwrap_err().to_string();
        assert!(
            said.contains("cuInit failed") && said.contains("999"),
            "{said}"
        );
    }
}

#[test]
fn with_little_memory_batches_go_in_fewer_tokens_and_give_the_same() {
    let test = "with_little_memory_batches_go_in_fewer_tokens_and_give_the_same";
    // The weights, and a workspace of 512 tokens, but not one of 1024.
    if process::in_one_with(test, "memory=3") {
        let folder = tiny_bge_m3();
        let batch = batch(&[300, 300, 300], folder.encoder.vocabulary_size());
        let mut backend = load(&folder, Format::F16);
        assert!(backend.most_tokens() < 1024, "{}", backend.most_tokens());
        let results = backend.embed(&batch, Outputs::BGE_M3).unwrap();
        let one = batch.sequence(2).ids;
        let alone = backend
            .embed(&[one].into_iter().collect(), Outputs::BGE_M3)
            .unwrap();
        assert_eq!(
            results.vectors(Head::Dense).unwrap().row(2),
            alone.vectors(Head::Dense).unwrap().row(0)
        );
    }
}

#[test]
fn without_memory_for_the_weights_the_load_says_so() {
    if process::in_one_with(
        "without_memory_for_the_weights_the_load_says_so",
        "memory=1",
    ) {
        let said = load_error();
        assert!(said.contains("CUDA_ERROR_OUT_OF_MEMORY"), "{said}");
    }
}

#[test]
fn after_a_fault_the_backend_is_lost_and_can_be_loaded_again() {
    let test = "after_a_fault_the_backend_is_lost_and_can_be_loaded_again";
    let settings = "fault=150";
    if process::in_one_with(test, settings) {
        let folder = tiny_bge_m3();
        let batch = batch(&[3, 20], folder.encoder.vocabulary_size());
        let mut backend = load(&folder, Format::F16);
        let mut other = backend.replicas().unwrap()().unwrap();
        let expected = backend.embed(&batch, Outputs::BGE_M3).unwrap();
        let lost = loop {
            match backend.embed(&batch, Outputs::BGE_M3) {
                Ok(results) => assert_eq!(results, expected),
                Err(error) => break error,
            }
        };
        assert!(matches!(lost, BackendError::Lost { .. }), "{lost}");
        // All on the device are lost with it.
        let lost = other.embed(&batch, Outputs::DENSE).unwrap_err();
        assert!(matches!(lost, BackendError::Lost { .. }), "{lost}");
        drop(backend);
        let mut again = load(&folder, Format::F16);
        assert_eq!(again.embed(&batch, Outputs::BGE_M3).unwrap(), expected);
        // It is of no use any more, and harms nobody: its memory is another's now.
        let lost = other.embed(&batch, Outputs::DENSE).unwrap_err();
        assert!(lost.to_string().contains("lost"), "{lost}");
        drop(other);
        assert_eq!(again.embed(&batch, Outputs::BGE_M3).unwrap(), expected);
    }
}

#[test]
fn where_machine_code_is_refused_ptx_is_run() {
    let test = "where_machine_code_is_refused_ptx_is_run";
    if process::in_one_with(test, "code=refused capability=9.0") {
        let folder = tiny_bge_m3();
        let batch = batch(&[3], folder.encoder.vocabulary_size());
        load(&folder, Format::Bf16)
            .embed(&batch, Outputs::BGE_M3)
            .unwrap();
    }
}

#[test]
fn a_kernel_with_a_fault_is_not_used() {
    let test = "a_kernel_with_a_fault_is_not_used";
    let faults = [
        (
            "attention",
            &["barriers", "waits", "transposition", "masks"][..],
        ),
        ("linear", &["barriers", "waits", "transposition", "masks"]),
        ("add_norm", &["barriers", "masks"]),
        ("embed_norm", &["barriers", "masks"]),
        ("first_rows", &["masks"]),
        ("pool_f16_cls", &["masks"]),
        ("row_dot", &["barriers", "masks"]),
    ];
    if process::is_one() {
        let said = load_error();
        let mutant = process::setting("mutant");
        let kernel = mutant.split(':').next().unwrap();
        let is_wrong = said.contains("gives right results") && said.contains(kernel);
        assert!(is_wrong || said.contains("ILLEGAL_ADDRESS"), "{said}");
        assert!(!said.contains("INVALID_PTX"), "{said}");
        return;
    }
    for capability in ["8.0", "9.0"] {
        for (kernel, fault) in faults
            .iter()
            .flat_map(|(k, all)| all.iter().map(move |f| (k, f)))
        {
            let settings = format!("capability={capability} mutant={kernel}:{fault}");
            process::in_one_with(test, &settings);
        }
    }
}
