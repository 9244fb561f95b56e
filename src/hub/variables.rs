//! The variables of the hubs' own clients: addresses, tokens, folders of what was fetched, and whether anything may be.
//!
//! Source: huggingface_hub 2.4.0, `constants.py`; modelscope 1.40.2, `utils/constants.py`.

use std::{fs, path::PathBuf};

use embedgate_config::{Environment, Hub};
use embedgate_hub::{Caches, Endpoint};

const HUGGING_FACE: &str = "https://huggingface.co";
/// Two sites, asked both where none is named.
const MODELSCOPE: [&str; 2] = ["https://modelscope.cn", "https://www.modelscope.ai"];
/// Words that mean yes, in any case.
const YES: [&str; 4] = ["1", "ON", "YES", "TRUE"];

/// The variable that says that nothing may be fetched, where one does.
pub(super) fn offline(environment: &Environment) -> Option<&'static str> {
    let is_yes = |name: &&str| {
        let value = environment.get(name).unwrap_or_default().to_uppercase();
        YES.contains(&value.as_str())
    };
    ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
        .into_iter()
        .find(is_yes)
}

/// The addresses of a hub.
pub(super) fn of_hub(hub: Hub, environment: &Environment) -> Vec<Endpoint> {
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

/// Returns the folders where the hubs' own clients keep the files that they fetched.
pub(super) fn caches(environment: &Environment) -> Caches {
    let path = |variable: &str, below: &str| {
        let found = environment.get(variable)?;
        Some(PathBuf::from(found).join(below))
    };
    let hugging_face = [
        path("HF_HUB_CACHE", ""),
        path("HUGGINGFACE_HUB_CACHE", ""),
        path("HF_HOME", "hub"),
        path("XDG_CACHE_HOME", "huggingface/hub"),
        path("HOME", ".cache/huggingface/hub"),
    ];
    let modelscope = [
        path("MODELSCOPE_CACHE", ""),
        path("HOME", ".cache/modelscope"),
    ];
    Caches {
        hugging_face: hugging_face.into_iter().flatten().collect(),
        modelscope: modelscope.into_iter().flatten().collect(),
        folders: Vec::new(),
    }
}

/// The token of the variable, or of the file in which huggingface_hub keeps it: that is for the usual hub, not for a mirror that
/// the command line names.
pub(super) fn hugging_face_token(environment: &Environment, is_usual: bool) -> Option<String> {
    let disabled = environment.get("HF_HUB_DISABLE_IMPLICIT_TOKEN");
    if disabled.is_some_and(|value| YES.contains(&value.to_uppercase().as_str())) {
        return None;
    }
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
