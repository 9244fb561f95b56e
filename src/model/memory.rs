//! The memory that a model takes, known before its weights are read. So a model that does not fit is refused with the
//! numbers, and not killed in the middle of a request.

pub(crate) mod estimate;

use embedgate_config::ByteSize;
use embedgate_core::{Precision, machine::memory::limit};

use self::estimate::{Estimate, Needs};
use super::{
    load::{LoadError, Plan},
    resolved::ResolvedModel,
};

/// Refuses a model that takes more than its `max_memory`, or than there is. One that ONNX Runtime runs is not judged: its
/// file is mapped, and the other memory that it takes is not known before it runs. Nor is one on a card, which has memory of its own.
///
/// # Errors
/// [`LoadError::Setting`] says how much, of what, and what would take less.
pub(super) fn check(model: &ResolvedModel, plan: &Plan) -> Result<(), LoadError> {
    let backend = &model.backend;
    if !backend.engine.knows_memory() || !backend.is_on_processor() {
        return Ok(());
    }
    let precision = backend.precision;
    let estimate = estimate(model, plan, precision);
    let Some((limit, what)) = allowed(model) else {
        return Ok(());
    };
    if estimate.total() <= limit {
        return Ok(());
    }
    let mut message = format!(
        "the model takes about {}, and {what} {}: {} of weights in {precision}",
        mib(estimate.total()),
        mib(limit),
        mib(estimate.weights)
    );
    if estimate.working > 0 {
        let working = mib(estimate.working);
        let tokens = longest_batch(model, plan);
        message += &format!(", {working} to run a batch of {tokens} tokens");
    }
    let kind = backend.engine.kind();
    let fitting = [Precision::Bf16, Precision::Int8]
        .into_iter()
        .filter(|precision| kind.has(*precision, backend.device))
        .find_map(|precision| {
            let total = self::estimate(model, plan, precision).total();
            let words = || format!("; backend.precision = \"{precision}\" takes {}", mib(total));
            (total <= limit).then(words)
        });
    message += &match fitting {
        Some(precision) => precision,
        None if estimate.weights < limit => {
            "; a smaller max_length or max_batch_tokens takes less to run".into()
        }
        None if model.replicas.get() > 1 => "; fewer replicas take less".into(),
        None => String::new(),
    };
    Err(LoadError::Setting(message))
}

/// Returns true when a model fits, as far as can be known. This includes a model that ONNX Runtime runs: each replica
/// has weights of its own.
pub(super) fn fits(model: &ResolvedModel, plan: &Plan) -> bool {
    let total = estimate(model, plan, model.backend.precision).total();
    allowed(model).is_none_or(|(limit, _)| total <= limit)
}

fn estimate(model: &ResolvedModel, plan: &Plan, precision: Precision) -> Estimate {
    model.backend.engine.memory(&Needs {
        encoder: &plan.folder.encoder,
        tokens: longest_batch(model, plan),
        replicas: model.replicas.get(),
        precision,
    })
}

/// Bytes that a model takes in the machine's memory; 0 for what is on a card.
pub(crate) fn of_machine(model: &ResolvedModel, plan: &Plan) -> u64 {
    match model.backend.is_on_processor() {
        true => estimate(model, plan, model.backend.precision).total(),
        false => 0,
    }
}

/// In tokens.
fn longest_batch(model: &ResolvedModel, plan: &Plan) -> usize {
    plan.max_tokens.max(model.max_batch_tokens.unwrap_or(0))
}

/// The least of the model's own limit and of what there is, and which it is; none where neither is known.
fn allowed(model: &ResolvedModel) -> Option<(u64, &'static str)> {
    let there_is = "this machine or its control group has";
    match (model.max_memory, limit()) {
        (Some(own), Some(all)) if own.0 > all => Some((all, there_is)),
        (Some(own), _) => Some((own.0, "max_memory is")),
        (None, Some(all)) => Some((all, there_is)),
        (None, None) => None,
    }
}

pub(crate) fn mib(bytes: u64) -> ByteSize {
    ByteSize::mib(bytes.div_ceil(1 << 20))
}
