//! The facts of the machine and of the rest of the configuration that loading a model needs.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use embedgate_config::{Config, Environment};
use embedgate_core::{library::LibraryPaths, machine::cores};

use super::placement::ThreadSettings;

/// The facts that loading needs in addition to the model's own configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoadContext {
    #[cfg(feature = "onnx")]
    onnxruntime: LibraryPaths,
    /// ONNX Runtime's plugin for graphics cards.
    #[cfg(feature = "onnx")]
    webgpu: LibraryPaths,
    /// The folder of CUDA's libraries, where it is named.
    #[cfg(feature = "onnx")]
    cuda_libraries: Option<PathBuf>,
    onednn: LibraryPaths,
    /// NVIDIA's driver library, where it is named.
    #[cfg(feature = "cuda")]
    cuda: Option<PathBuf>,
    /// Threads of a matrix product where the model's config says nothing.
    pub default_threads: usize,
    /// The physical cores that this process may use; none where the system does not say.
    #[cfg(feature = "cpu")]
    cores: Vec<cores::Core>,
    /// Most inputs in one request.
    pub max_inputs: usize,
    /// The folder of measurements, and of packed weights that replicas share.
    pub state_folder: Option<PathBuf>,
    /// True when kept measurements are not used.
    pub recalibrate: bool,
    /// True when the cache outlives the process: then a model is known by all its bytes.
    pub cache_outlives: bool,
}

/// The folders of the libraries' Python packages, where the program was installed as one, too.
fn of_python(beside: &Path) -> Vec<PathBuf> {
    let Some(environment) = beside.parent() else {
        return Vec::new();
    };
    if !environment.join("pyvenv.cfg").exists() {
        return Vec::new();
    }
    let lib = environment.join("lib");
    let entries = fs::read_dir(&lib).into_iter().flatten().flatten();
    let packages = entries.map(|entry| entry.path().join("site-packages/onnxruntime/capi"));
    let mut folders: Vec<PathBuf> = packages.filter(|folder| folder.is_dir()).collect();
    folders.push(lib);
    folders
}

impl LoadContext {
    /// Looks at the configuration, the environment, the program's own place and the working folder.
    #[must_use]
    pub(crate) fn new(config: &Config, environment: &Environment) -> Self {
        #[cfg(feature = "onnx")]
        let named = config
            .onnxruntime
            .library
            .clone()
            .or_else(|| environment.get("ORT_DYLIB_PATH").map(PathBuf::from));
        let folders = |own: &str| {
            let beside = environment.program_folder().into_iter().flat_map(|beside| {
                // The last is for a program run from cargo's target folder, wherever it is run.
                let from_target = beside.join("../../.embedgate").join(own);
                // Where the package has them: beside the program, or installed below a folder.
                let installed = beside.join("../lib/embedgate");
                let named = [
                    beside.to_owned(),
                    beside.join("lib"),
                    installed,
                    from_target,
                ];
                named.into_iter().chain(of_python(beside))
            });
            let here = PathBuf::from(".embedgate").join(own);
            let system = ["/usr/local/lib/embedgate", "/usr/lib/embedgate"].map(PathBuf::from);
            beside.chain([here]).chain(system).collect()
        };
        // Two threads on one core share its arithmetic, and products are nothing else.
        let allowed = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cores = cores::physical();
        let n_cores = match cores.len() {
            0 => num_cpus::get_physical(),
            n => n,
        };
        let default_threads = allowed.min(n_cores).max(1);
        Self {
            #[cfg(feature = "onnx")]
            onnxruntime: LibraryPaths {
                named,
                folders: folders("lib"),
            },
            #[cfg(feature = "onnx")]
            webgpu: LibraryPaths {
                named: config.onnxruntime.webgpu.clone(),
                folders: folders("webgpu"),
            },
            #[cfg(feature = "onnx")]
            cuda_libraries: config.onnxruntime.cuda.clone(),
            onednn: LibraryPaths {
                named: config.onednn.library.clone(),
                folders: folders("onednn"),
            },
            #[cfg(feature = "cuda")]
            cuda: config.cuda.library.clone(),
            default_threads,
            #[cfg(feature = "cpu")]
            cores,
            max_inputs: config.server.max_inputs,
            state_folder: config
                .server
                .state_dir
                .clone()
                .or_else(|| environment.state_folder()),
            recalibrate: false,
            cache_outlives: config.cache.file.path.is_some(),
        }
    }

    /// Returns the threads of each replica, where there are `replicas` of them.
    pub(super) fn threads(&self, stated: ThreadSettings, replicas: NonZeroUsize) -> usize {
        let shared = || (self.default_threads / replicas).max(1);
        stated.each.unwrap_or_else(shared)
    }

    /// The cores that `n_threads` threads of all replicas stay on; none where the system chooses.
    #[cfg(feature = "cpu")]
    pub(super) fn cores(&self, stated: ThreadSettings, n_threads: usize) -> Vec<cores::Core> {
        let fills = || fills(n_threads, self.default_threads, self.cores.len());
        if stated.are_pinned.unwrap_or_else(fills) {
            self.cores.clone()
        } else {
            Vec::new()
        }
    }

    /// Returns the paths of ONNX Runtime's libraries.
    #[cfg(feature = "onnx")]
    #[must_use]
    pub(crate) fn onnx_libraries(&self) -> embedgate_onnx::Libraries {
        embedgate_onnx::Libraries {
            runtime: self.onnxruntime.clone(),
            webgpu: self.webgpu.clone(),
            cuda: self.cuda_libraries.clone(),
        }
    }

    /// Returns the places where oneDNN's library may be.
    #[cfg_attr(
        not(feature = "cpu"),
        expect(dead_code, reason = "only one backend asks for it")
    )]
    #[must_use]
    pub(crate) fn onednn(&self) -> LibraryPaths {
        self.onednn.clone()
    }

    /// NVIDIA's driver library, where the configuration names it.
    #[cfg(feature = "cuda")]
    #[must_use]
    pub(crate) fn cuda(&self) -> Option<&std::path::Path> {
        self.cuda.as_deref()
    }
}

/// Returns true when `n_threads` threads fill the machine. With fewer threads, another process that pins its own might
/// take the same cores and leave the others idle. When a quota allows fewer threads than there are cores, the system
/// has to move them.
#[cfg(feature = "cpu")]
fn fills(n_threads: usize, allowed: usize, n_cores: usize) -> bool {
    n_threads == n_cores && allowed == n_cores
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use super::*;

    #[test]
    fn threads_fill_the_machine_where_each_core_has_one_and_no_quota_is_below() {
        for (n_threads, allowed, n_cores, expected) in [
            (4, 4, 4, true),
            (2, 4, 4, false),
            (8, 4, 4, false),
            (4, 2, 4, false),
            // The system does not say which cores there are.
            (4, 4, 0, false),
        ] {
            let is_full = fills(n_threads, allowed, n_cores);
            assert_eq!(is_full, expected, "{n_threads} {allowed} {n_cores}");
        }
    }
}
