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
    /// The route that is taken; none where there is no router.
    pub(super) route: Option<String>,
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
        route: None,
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
        let taken = file.choose(route);
        let taken = taken.map_err(|problem| invalid(config, problem))?;
        let modules = file.modules(&entry, taken);
        routed
            .entries
            .extend(modules.map_err(|problem| invalid(config, problem))?);
        routed.route = Some(taken.to_owned());
        routed.routes = file.structure.into_keys().collect();
    }
    if let Some(route) = route.filter(|_| routed.routes.is_empty()) {
        let problem = format!("it names no Router, and the model's key route is \"{route}\"");
        return Err(invalid(&path, problem));
    }
    Ok(routed)
}

impl RouterFile {
    /// The route of this name, or else the default one.
    fn choose<'a>(&'a self, route: Option<&'a str>) -> Result<&'a str, String> {
        let Parameters {
            default_route,
            route_mappings,
        } = &self.parameters;
        let names: Vec<String> = self
            .structure
            .keys()
            .map(|name| format!("\"{name}\""))
            .collect();
        let names = names.join(", ");
        if route.is_none() && !route_mappings.is_empty() {
            return Err(format!(
                "route_mappings is set, which is not supported: choose one of {names} with the model's key route"
            ));
        }
        // The reference goes by the kind of input before it takes the default.
        let text = self.structure.contains_key("text").then_some("text");
        let route = route.or(text).or(default_route.as_deref());
        match route {
            Some(route) if self.structure.contains_key(route) => Ok(route),
            Some(route) => Err(format!("it has no route \"{route}\", there are {names}")),
            None => Err(format!(
                "it has no default_route: choose one of {names} with the model's key route"
            )),
        }
    }

    /// The modules of a route, in the place of the router.
    fn modules(&self, router: &ModuleEntry, route: &str) -> Result<Vec<ModuleEntry>, String> {
        let within = Some(router.path.as_str()).filter(|path| !matches!(*path, "" | "."));
        let module = |id: &String| {
            let kind = self.types.get(id);
            let kind = kind.ok_or_else(|| format!("types does not name \"{id}\""))?;
            Ok(ModuleEntry {
                name: None,
                path: within.map_or_else(|| id.clone(), |within| format!("{within}/{id}")),
                kind: kind.clone(),
            })
        };
        let modules = self.structure.get(route).into_iter().flatten();
        modules.map(module).collect()
    }
}
