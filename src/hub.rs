//! Fetching models: what the configuration, the command line and the environment say of hubs, and the fetch while others serve.
//! The variables are the hubs' own.
//!
//! Source: huggingface_hub 2.4.0, `constants.py`; modelscope 1.40.2, `utils/constants.py`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::anyhow;
use embedgate_config::{Environment, Hub, HubAddress, HubConfig, Secret};
use embedgate_hub::{Caches, Endpoint, Entry, HubError, Listing, Progress, Request, Settings};
use futures_util::FutureExt;

use crate::{model::Fetched, model_host::Fetcher};

const HUGGING_FACE: &str = "https://huggingface.co";
/// Two sites, asked both where none is named.
const MODELSCOPE: [&str; 2] = ["https://modelscope.cn", "https://www.modelscope.ai"];
/// Words that mean yes, in any case.
const YES: [&str; 4] = ["1", "ON", "YES", "TRUE"];
/// Lines of the log about a fetch are at least so far apart.
const QUIET: Duration = Duration::from_secs(10);

/// The options of the command line for hubs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
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
    asked: &Asked,
    config: &HubConfig,
    environment: &Environment,
) -> anyhow::Result<Settings> {
    if let Some(name) = offline(environment) {
        return Err(HubError::Offline(name).into());
    }
    let (folders, hubs): (Vec<&String>, Vec<&String>) =
        asked.from.iter().partition(|named| is_folder(named));
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
        connections: asked.jobs.map_or(config.connections, usize::from),
        first_pause: Duration::from_millis(500),
        is_ordered: !named.is_empty(),
        caches: Caches {
            folders: folders.into_iter().map(PathBuf::from).collect(),
            ..caches(environment)
        },
    })
}

/// The variable that says that nothing may be fetched, where one does.
fn offline(environment: &Environment) -> Option<&'static str> {
    let is_yes = |name: &&str| {
        let value = environment.get(name).unwrap_or_default().to_uppercase();
        YES.contains(&value.as_str())
    };
    ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
        .into_iter()
        .find(is_yes)
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

/// Returns the folders where the hubs' own clients keep the files that they fetched.
fn caches(environment: &Environment) -> Caches {
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

/// The token of the variable, or of the file in which huggingface_hub keeps it: that is for the usual hub, not for a mirror that
/// the command line names.
fn hugging_face_token(environment: &Environment, is_usual: bool) -> Option<String> {
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

/// Makes the fetcher that gets a model while others serve.
#[must_use]
pub(crate) fn fetcher(config: &HubConfig, environment: &Environment) -> Fetcher {
    let (config, environment) = (config.clone(), environment.clone());
    Arc::new(move |source, target, fetched| {
        // Where nothing may be fetched, that is said of the model that needs it.
        let settings = settings(&Asked::default(), &config, &environment);
        async move {
            let settings = settings.map_err(|error| format!("{error:#}"))?;
            let request = Request {
                source,
                target,
                selection: embedgate_hub::Selection::default(),
                is_dry_run: false,
            };
            let told = Told {
                fetched,
                name: request.source.to_string(),
                state: Mutex::default(),
            };
            let pulled = embedgate_hub::pull(&request, settings, &told).await;
            let pulled = pulled.map_err(|error| error.to_string())?;
            for file in pulled.out_of_date {
                tracing::warn!("{} was written from other weights", file.display());
            }
            Ok(())
        }
        .boxed()
    })
}

/// Tells the log and whoever asks how a fetch goes on.
struct Told {
    fetched: Arc<Fetched>,
    name: String,
    state: Mutex<Count>,
}

#[derive(Default)]
struct Count {
    done: u64,
    total: u64,
    said: Option<Instant>,
}

impl Told {
    fn change(&self, change: impl FnOnce(&mut Count)) {
        let mut count = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut count);
        self.fetched.set(count.done, count.total);
        if count.said.is_some_and(|said| said.elapsed() < QUIET) {
            return;
        }
        count.said = Some(Instant::now());
        let mb = |bytes: u64| bytes / 1_000_000;
        let (done, total) = (mb(count.done), mb(count.total));
        tracing::info!("fetching {}: {done} of {total} MB", self.name);
    }
}

impl Progress for Told {
    fn begin(&self, _: &Listing, files: &[&Entry]) {
        let total = files.iter().map(|file| file.size).sum();
        self.change(|count| count.total = total);
    }

    fn came(&self, _: usize, bytes: u64) {
        self.change(|count| count.done += bytes);
    }

    fn lost(&self, _: usize, bytes: u64) {
        self.change(|count| count.done = count.done.saturating_sub(bytes));
    }

    fn whole(&self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(from: &[&str], environment: &Environment) -> anyhow::Result<Vec<(Hub, String)>> {
        let asked = Asked {
            from: from.iter().map(|&named| named.to_owned()).collect(),
            jobs: None,
        };
        let settings = settings(&asked, &HubConfig::default(), environment)?;
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
        let asked = Asked {
            from: vec![mine.into(), "hf".into()],
            jobs: Some(9),
        };
        let config = HubConfig {
            order: vec!["modelscope".into()],
            ..HubConfig::default()
        };
        let settings = settings(&asked, &config, &none).unwrap();
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
            let asked = Asked {
                from: owned(from),
                jobs: None,
            };
            let config = HubConfig {
                order: owned(order),
                ..HubConfig::default()
            };
            let settings = settings(&asked, &config, &environment).unwrap();
            settings.hugging_face_token.is_some()
        };
        assert!(token(&[], &[]) && token(&["hf"], &[]) && token(&[&home], &["modelscope"]));
        let mirror = "https://mirror.example";
        assert!(!token(&[mirror], &[]) && !token(&[], &[mirror]));
    }
}
