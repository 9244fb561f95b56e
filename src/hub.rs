//! Fetching models: what the configuration, the command line and the environment say of hubs.

pub(crate) mod fetcher;
mod variables;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::anyhow;
use embedgate_config::{Environment, Hub, HubAddress, HubConfig, Secret};
use embedgate_hub::{Caches, Endpoint, HubError, Settings};

use self::variables::{caches, hugging_face_token, of_hub, offline};

/// The options of the command line for hubs.
#[derive(Clone, Debug, Default)]
pub(crate) struct HubOptions {
    /// The places to ask, which replace those of the configuration: hubs, mirrors, and folders that may have files
    /// already.
    pub(crate) from: Vec<String>,
    /// Connections at a time.
    pub(crate) jobs: Option<u8>,
}

/// The settings of a pull.
///
/// # Errors
/// Where nothing may be fetched, or a hub is none.
pub(crate) fn settings(
    options: &HubOptions,
    config: &HubConfig,
    environment: &Environment,
) -> anyhow::Result<Settings> {
    if let Some(name) = offline(environment) {
        return Err(HubError::Offline(name).into());
    }
    let (folders, hubs): (Vec<&String>, Vec<&String>) =
        options.from.iter().partition(|named| is_folder(named));
    if let Some(missing) = folders.iter().find(|folder| !Path::new(folder).is_dir()) {
        return Err(anyhow!("--from: there is no folder {missing}"));
    }
    let named = if hubs.is_empty() {
        config.order.iter().collect()
    } else {
        hubs
    };
    let mut endpoints = Vec::new();
    // Whether no address is named: the token of the client's file is for the usual hub alone.
    let mut is_usual = true;
    for named in &named {
        let address = HubAddress::read(named).map_err(|problem| anyhow!("{problem}"))?;
        match address.url {
            None => endpoints.extend(of_hub(address.hub, environment)),
            Some(url) => {
                is_usual &= address.hub != Hub::HuggingFace;
                endpoints.push(Endpoint {
                    hub: address.hub,
                    url,
                });
            }
        }
    }
    if named.is_empty() {
        let both = [Hub::HuggingFace, Hub::ModelScope].into_iter();
        endpoints.extend(both.flat_map(|hub| of_hub(hub, environment)));
    }
    let own = |token: &Option<Secret>| token.as_ref().map(|token| token.expose().trim().to_owned());
    let of_variable = |name| environment.get(name).map(|token| token.trim().to_owned());
    Ok(Settings {
        endpoints,
        hugging_face_token: own(&config.huggingface_token)
            .or_else(|| hugging_face_token(environment, is_usual)),
        modelscope_token: own(&config.modelscope_token)
            .or_else(|| of_variable("MODELSCOPE_API_TOKEN")),
        connections: options.jobs.map_or(config.connections, usize::from),
        first_pause: Duration::from_millis(500),
        is_ordered: !named.is_empty(),
        caches: Caches {
            folders: folders.into_iter().map(PathBuf::from).collect(),
            ..caches(environment)
        },
    })
}

/// True for a folder: one that is there, or what is written as one, with a dot or a slash at its beginning.
fn is_folder(named: &str) -> bool {
    let is_written_so = ["/", "./", "../"]
        .iter()
        .any(|start| named.starts_with(start));
    is_written_so || (HubAddress::read(named).is_err() && Path::new(named).is_dir())
}

/// Returns the options of `convert` that write an ONNX model of this name from its folder's weights. None when
/// `convert` does not write a model of this name.
pub(crate) fn conversion(file: &Path) -> Option<&'static str> {
    Some(match file.file_name()?.to_str()? {
        "model.onnx" => "",
        "model_int8.onnx" => " --precision int8",
        "model_gpu.onnx" => " --for gpu",
        "model_gpu_f16.onnx" => " --for gpu --precision f16",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn urls(from: &[&str], environment: &Environment) -> anyhow::Result<Vec<(Hub, String)>> {
        let options = HubOptions {
            from: from.iter().map(|&named| named.to_owned()).collect(),
            jobs: None,
        };
        let settings = settings(&options, &HubConfig::default(), environment)?;
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
                &["https://one.example", "modelscope=http://two.example"],
                &mirror
            )
            .unwrap(),
            [
                (Hub::HuggingFace, "https://one.example".to_owned()),
                (Hub::ModelScope, "http://two.example".to_owned())
            ]
        );
        assert_eq!(urls(&["ms"], &none).unwrap().len(), 2);
        let error = urls(&["ftp://a"], &none).unwrap_err().to_string();
        assert!(error.contains("is no hub"), "{error}");
        let offline = Environment::from([("HF_HUB_OFFLINE", "on")]);
        let error = urls(&[], &offline).unwrap_err().to_string();
        assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
    }

    #[test]
    fn a_folder_is_looked_into_and_no_hub() {
        let none = Environment::default();
        let folder = tempfile::tempdir().unwrap();
        let mine = folder.path().to_str().unwrap();
        assert_eq!(urls(&[mine], &none).unwrap().len(), 3);
        let error = urls(&["./nowhere"], &none).unwrap_err().to_string();
        assert!(error.contains("there is no folder ./nowhere"), "{error}");
        let options = HubOptions {
            from: vec![mine.into(), "hf".into()],
            jobs: Some(9),
        };
        let config = HubConfig {
            order: vec!["modelscope".into()],
            ..HubConfig::default()
        };
        let settings = settings(&options, &config, &none).unwrap();
        assert_eq!(settings.caches.folders, [PathBuf::from(mine)]);
        assert_eq!((settings.endpoints.len(), settings.connections), (1, 9));
        assert_eq!(settings.endpoints[0].hub, Hub::HuggingFace);
        assert!(settings.is_ordered);
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
        // Of the file to the usual hub, whatever else is named; to no mirror, wherever it is named.
        let environment = Environment::from([("HF_HOME", &*home)]);
        let token = |from: &[&str], order: &[&str]| {
            let owned = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect();
            let options = HubOptions {
                from: owned(from),
                jobs: None,
            };
            let config = HubConfig {
                order: owned(order),
                ..HubConfig::default()
            };
            let settings = settings(&options, &config, &environment).unwrap();
            settings.hugging_face_token.is_some()
        };
        assert!(token(&[], &[]) && token(&["hf"], &[]) && token(&[&home], &["modelscope"]));
        let mirror = "https://mirror.example";
        assert!(!token(&[mirror], &[]) && !token(&[], &[mirror]));
    }
}
