//! The requests of RAGFlow's providers, sent one by one, and a report of what each would say.

mod answers;
mod probe;
mod probes;

use std::fmt::Write;

use embedgate_config::Environment;

use self::{
    probe::{Key, Probe, ask},
    probes::{embedding, reranking},
};
use crate::args::doctor::RagflowArgs;

/// Tries the providers. Returns the report, and true where all is well.
pub(super) async fn ragflow(
    args: &RagflowArgs,
    environment: &Environment,
) -> anyhow::Result<(String, bool)> {
    let key = args.key.clone();
    let key = key.or_else(|| environment.get("EMBEDGATE_KEY").map(str::to_owned));
    let mut probes = embedding(&args.model);
    if let Some(model) = &args.rerank_model {
        probes.extend(reranking(model));
    }
    if let Some(provider) = &args.provider {
        let all: Vec<&str> = probes.iter().map(|probe| probe.providers).collect();
        let all = all.join(", ");
        let is_it = |probe: &Probe| {
            let mut names = probe.providers.split(", ");
            names.any(|name| name.eq_ignore_ascii_case(provider))
        };
        probes.retain(is_it);
        anyhow::ensure!(
            !probes.is_empty(),
            "--provider: RAGFlow has no {provider} here, expected one of: {all}"
        );
    }
    let (mut report, mut is_well) = (String::new(), true);
    for probe in probes {
        let (providers, path) = (probe.providers, probe.path);
        let (word, said) = match ask(&probe, &args.url, key.as_deref()).await {
            Ok(found) if matches!(probe.key, Key::Never) => {
                let by = "; by the server's default model, since this provider names none";
                ("ok  ", format!("{found}{by}"))
            }
            Ok(found) => ("ok  ", found),
            Err(problem) => {
                is_well = false;
                ("FAIL", problem)
            }
        };
        writeln!(report, "{word}  {providers}: POST {path}: {said}")?;
    }
    if args.rerank_model.is_none() {
        writeln!(
            report,
            "      reranking was not tried: name a model with --rerank-model"
        )?;
    }
    Ok((report, is_well))
}
