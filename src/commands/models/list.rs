//! `embedgate models list`: a table of folders.

use embedgate_config::Config;
use embedgate_hub::Lock;
use embedgate_tools::table::Table;

use super::{Failure, all, bytes, is_unfinished, same, say};

/// Prints where each model is from.
pub(super) fn list(config: &Config) -> Result<(), Failure> {
    let header = ["folder", "served as", "files", "from", "revision"].map(str::to_owned);
    let mut table = Table::new(header);
    for folder in all(config) {
        let only = |files: &str| [files.to_owned(), String::new(), String::new()];
        let [files, from, revision] = match Lock::read(&folder) {
            _ if is_unfinished(&folder) => only("not fetched to its end"),
            Ok(Some(lock)) => {
                let all = lock.files.iter().map(|file| file.size).sum();
                let files = format!("{}, {}", lock.files.len(), bytes(all));
                let from = match lock.is_local() {
                    true => lock.source,
                    false => format!("{} of {}", lock.source, lock.endpoint),
                };
                [files, from, lock.commit]
            }
            Ok(None) if folder.is_dir() => only("not fetched by pull"),
            Ok(None) => only("missing"),
            Err(error) => only(&error.to_string()),
        };
        let models = config.models.iter();
        let models = models.filter(|(_, model)| same(&model.path, &folder));
        let names: Vec<&str> = models.map(|(name, _)| name.as_str()).collect();
        let folder = folder.display().to_string();
        table.row([folder, names.join(", "), files, from, revision]);
    }
    Ok(say(&table.to_string())?)
}
