//! The module `Router`, which older versions call `Asym`: modules of their own for each kind of text. One route of them is served.
//!
//! Source: sentence-transformers 6.2, `router.py`.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{ModuleEntry, inside, invalid};
use crate::folder::{FolderError, read_json};

/// The file `router_config.json`.
#[derive(Deserialize)]
struct RouterFile {
    /// The kind of each module, by its folder.
    types: BTreeMap<String, String>,
    /// The folders of each route's modules, first to last.
    structure: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Default, Deserialize)]
struct Parameters {
    default_route: Option<String>,
    #[serde(default)]
    route_mappings: Map<String, Value>,
}

/// The modules of a folder, with those of one route in the place of each router.
pub(super) struct Routed {
    pub(super) entries: Vec<ModuleEntry>,
    /// The routes of the last router; none where there is no router.
    pub(super) routes: Vec<String>,
}

/// Puts the modules of a route, or else of the default one, in the place of each router.
pub(super) fn resolve(
    entries: Vec<ModuleEntry>,
    folder: &Path,
    route: Option<&str>,
) -> Result<Routed, FolderError> {
    let path = folder.join("modules.json");
    let mut routed = Routed {
        entries: Vec::new(),
        routes: Vec::new(),
    };
    for entry in entries {
        if !matches!(entry.kind(), "Router" | "Asym") {
            routed.entries.push(entry);
            continue;
        }
        let within = match entry.path.as_str() {
            "" | "." => folder.to_owned(),
            inner => inside(folder, inner, &path)?,
        };
        let names = ["router_config.json", "config.json"].map(|name| within.join(name));
        let config = names.iter().find(|path| path.exists()).unwrap_or(&names[0]);
        let file: Option<RouterFile> = read_json(config)?;
        let file = file.ok_or_else(|| super::missing(config))?;
        let modules = file.route(&entry, route);
        routed
            .entries
            .extend(modules.map_err(|problem| invalid(config, problem))?);
        routed.routes = file.structure.into_keys().collect();
    }
    if let Some(route) = route.filter(|_| routed.routes.is_empty()) {
        let problem = format!("it names no Router, and the model's key route is \"{route}\"");
        return Err(invalid(&path, problem));
    }
    Ok(routed)
}

impl RouterFile {
    /// The modules of a route, or else of the default one.
    fn route(&self, router: &ModuleEntry, route: Option<&str>) -> Result<Vec<ModuleEntry>, String> {
        let Parameters {
            default_route,
            route_mappings,
        } = &self.parameters;
        let names = || {
            let names: Vec<String> = self
                .structure
                .keys()
                .map(|name| format!("\"{name}\""))
                .collect();
            names.join(", ")
        };
        if route.is_none() && !route_mappings.is_empty() {
            return Err(format!(
                "route_mappings is set, which is not supported: choose one of {} with the model's key route",
                names()
            ));
        }
        let Some(route) = route.or(default_route.as_deref()) else {
            return Err(format!(
                "it has no default_route: choose one of {} with the model's key route",
                names()
            ));
        };
        let ids = self.structure.get(route);
        let ids =
            ids.ok_or_else(|| format!("it has no route \"{route}\", there are {}", names()))?;
        let module = |id: &String| {
            let kind = self.types.get(id);
            let kind = kind.ok_or_else(|| format!("types does not name \"{id}\""))?;
            let within = Some(router.path.as_str()).filter(|path| !matches!(*path, "" | "."));
            Ok(ModuleEntry {
                name: None,
                path: within.map_or_else(|| id.clone(), |within| format!("{within}/{id}")),
                kind: kind.clone(),
            })
        };
        ids.iter().map(module).collect()
    }
}
