//! Settings of hubs from the environment: addresses, tokens, and whether nothing may be fetched. The variables are the hubs' own.
//!
//! Source: huggingface_hub 2.4.0, `constants.py`; modelscope 1.40.2, `utils/constants.py`.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{anyhow, bail};
use embedgate_config::Environment;
use embedgate_hub::{Endpoint, Hub, HubError, Settings};

use crate::args::hub::PullArgs;

const HUGGING_FACE: &str = "https://huggingface.co";
/// Two sites, asked both where none is named.
const MODELSCOPE: [&str; 2] = ["https://modelscope.cn", "https://www.modelscope.ai"];
/// Words that mean yes, in any case.
const YES: [&str; 4] = ["1", "ON", "YES", "TRUE"];

/// The settings of a pull.
///
/// # Errors
/// Where nothing may be fetched, or `--from` names what is no hub.
pub(super) fn settings(args: &PullArgs, environment: &Environment) -> anyhow::Result<Settings> {
    let is_yes = |name: &&&str| {
        let value = environment.get(name).unwrap_or_default().to_uppercase();
        YES.contains(&value.as_str())
    };
    if let Some(name) = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
        .iter()
        .find(is_yes)
    {
        return Err(HubError::Offline(name).into());
    }
    let endpoints = match args.from.is_empty() {
        true => [Hub::HuggingFace, Hub::ModelScope]
            .into_iter()
            .flat_map(|hub| of_hub(hub, environment))
            .collect(),
        false => {
            let mut all = Vec::new();
            for named in &args.from {
                all.extend(named_endpoints(named, environment)?);
            }
            all
        }
    };
    let disabled = environment.get("HF_HUB_DISABLE_IMPLICIT_TOKEN");
    let disabled = disabled.is_some_and(|value| YES.contains(&value.to_uppercase().as_str()));
    Ok(Settings {
        endpoints,
        hugging_face_token: (!disabled)
            .then(|| hugging_face_token(environment, args.from.is_empty()))
            .flatten(),
        modelscope_token: environment
            .get("MODELSCOPE_API_TOKEN")
            .map(|token| token.trim().to_owned()),
        connections: args.jobs.max(1),
        first_pause: Duration::from_millis(500),
    })
}

/// The addresses of a hub.
fn of_hub(hub: Hub, environment: &Environment) -> Vec<Endpoint> {
    let endpoint = |url: &str| Endpoint {
        hub,
        url: url.trim_end_matches('/').into(),
    };
    let with_scheme = |named: &str| match named.contains("://") {
        true => named.to_owned(),
        false => format!("https://{named}"),
    };
    match hub {
        Hub::HuggingFace => vec![endpoint(
            environment.get("HF_ENDPOINT").unwrap_or(HUGGING_FACE),
        )],
        Hub::ModelScope => {
            let named = environment
                .get("MODELSCOPE_ENDPOINT")
                .or_else(|| environment.get("MODELSCOPE_DOMAIN"));
            match named {
                Some(named) => vec![endpoint(&with_scheme(named))],
                None => MODELSCOPE.map(endpoint).into(),
            }
        }
    }
}

fn named_endpoints(named: &str, environment: &Environment) -> anyhow::Result<Vec<Endpoint>> {
    let (hub, url) = match named.split_once('=') {
        None => (None, named),
        Some(("hf" | "huggingface", url)) => (Some(Hub::HuggingFace), url),
        Some(("modelscope" | "ms", url)) => (Some(Hub::ModelScope), url),
        Some((other, _)) => bail!(r#"--from: "{other}" is no hub: expected hf or modelscope"#),
    };
    match url {
        "hf" | "huggingface" if hub.is_none() => Ok(of_hub(Hub::HuggingFace, environment)),
        "modelscope" | "ms" if hub.is_none() => Ok(of_hub(Hub::ModelScope, environment)),
        url if url.starts_with("http://") || url.starts_with("https://") => Ok(vec![Endpoint {
            hub: hub.unwrap_or(Hub::HuggingFace),
            url: url.trim_end_matches('/').into(),
        }]),
        other => Err(anyhow!(
            r#"--from: "{other}" is no hub: expected hf, modelscope, or an address such as https://mirror.example"#
        )),
    }
}

/// The token of the variable, or of the file in which huggingface_hub keeps it: that is for the usual hub, not for a mirror that
/// the command line names.
fn hugging_face_token(environment: &Environment, is_usual: bool) -> Option<String> {
    let of_variable = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
        .into_iter()
        .find_map(|name| environment.get(name));
    if let Some(token) = of_variable {
        return Some(token.trim().to_owned());
    }
    if !is_usual {
        return None;
    }
    let below =
        |variable: &str, below: &str| Some(PathBuf::from(environment.get(variable)?).join(below));
    let file = environment
        .get("HF_TOKEN_PATH")
        .map(PathBuf::from)
        .or_else(|| below("HF_HOME", "token"))
        .or_else(|| below("XDG_CACHE_HOME", "huggingface/token"))
        .or_else(|| below("HOME", ".cache/huggingface/token"))?;
    let token = fs::read_to_string(file).ok()?.trim().to_owned();
    (!token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(args: &[&str], environment: &Environment) -> anyhow::Result<Vec<(Hub, String)>> {
        use clap::Parser;
        let line = ["embedgate", "pull", "a/b"].iter().chain(args);
        let cli = crate::args::Cli::try_parse_from(line).unwrap();
        let Some(crate::args::Command::Pull(args)) = cli.command else {
            panic!("not pull");
        };
        let settings = settings(&args, environment)?;
        Ok(settings
            .endpoints
            .into_iter()
            .map(|endpoint| (endpoint.hub, endpoint.url))
            .collect())
    }

    #[test]
    fn hubs_are_those_of_the_command_line_else_of_the_variables_else_the_usual_ones() {
        let none = Environment::default();
        assert_eq!(urls(&[], &none).unwrap().len(), 3);
        let mirror = Environment::from([
            ("HF_ENDPOINT", "https://mirror.example/"),
            ("MODELSCOPE_ENDPOINT", "hub.example"),
        ]);
        assert_eq!(
            urls(&[], &mirror).unwrap(),
            [
                (Hub::HuggingFace, "https://mirror.example".to_owned()),
                (Hub::ModelScope, "https://hub.example".to_owned())
            ]
        );
        assert_eq!(
            urls(
                &[
                    "--from",
                    "https://one.example,modelscope=http://two.example"
                ],
                &mirror
            )
            .unwrap(),
            [
                (Hub::HuggingFace, "https://one.example".to_owned()),
                (Hub::ModelScope, "http://two.example".to_owned())
            ]
        );
        assert_eq!(urls(&["--from", "ms"], &none).unwrap().len(), 2);
        let error = urls(&["--from", "ftp://a"], &none).unwrap_err().to_string();
        assert!(error.contains("is no hub"), "{error}");
        let offline = Environment::from([("HF_HUB_OFFLINE", "on")]);
        let error = urls(&[], &offline).unwrap_err().to_string();
        assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
    }

    #[test]
    fn the_token_of_huggingface_hub_s_file_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), "hf_abc\n").unwrap();
        let home = folder.path().display().to_string();
        let environment = Environment::from([("HF_HOME", &*home)]);
        assert_eq!(
            hugging_face_token(&environment, true).as_deref(),
            Some("hf_abc")
        );
        assert_eq!(hugging_face_token(&environment, false), None);
        let environment = Environment::from([("HF_HOME", &*home), ("HF_TOKEN", "other")]);
        assert_eq!(
            hugging_face_token(&environment, false).as_deref(),
            Some("other")
        );
    }
}
